"""What ``--help`` teaches: the flow from generators to a trained network, with commands to copy."""

MAIN = """\
Steerable point convolutions for any matrix group given by its generators.

1. Define a group, the symmetry of your data. Put this in a file my_group.py:

     import numpy as np
     import emkernel as ek

     c, s = np.cos(2 * np.pi / 5), np.sin(2 * np.pi / 5)
     turn = [[c, -s, 0], [s, c, 0], [0, 0, 1]]  # a fifth of a turn about z
     mirror = np.diag([1, -1, 1])
     G = ek.MatrixGroup("C5v", discrete_generators=[turn, mirror])

   discrete_generators are elements of the group; lie_algebra, the other
   argument, holds generators A of one-parameter subgroups exp(tA). Groups that
   people use have names: `emkernel groups` lists them.

2. Check it. Say what you know of the group that you mean: ten elements.

     emkernel check my_group.py:G --order 10

   prints what the group is and how well all that is built on it holds.

3. Train a network whose layers are equivariant under your group, on data that
   are made on the spot:

     emkernel train nbody --group my_group.py:G
"""

MAIN_END = """\
examples:
  emkernel groups
  emkernel check Oh
  emkernel check my_group.py:G --order 10
  emkernel train nbody --group O2z
  emkernel train qm9 --root data/qm9 --epochs 40
  emkernel study symmetry --quick
  emkernel train --help                     # each command has its own

The next step is a layer of your own in Python, emkernel.nn.PointConv: see
`import emkernel; help(emkernel.nn.PointConv)`, README.md and docs/.
Exit status: 0 done, 1 a check failed, 2 wrong input, 130 interrupted.
"""

GROUPS = """\
List the groups that have a name: the dimension d of the space that they act
on, the number of their elements, the dimension of their Lie algebra, and the
Hermann-Mauguin and Schoenflies symbols of point groups.
"""

GROUPS_END = """\
examples:
  emkernel groups
Wherever a group is asked for, any of these names will do, or a file:
  emkernel check Oh                         # a name of this list
  emkernel check m-3m                       # the same by its symbol
  emkernel check 'C(7)'                     # a family with its numbers
  emkernel check my_group.py:G              # a MatrixGroup G, or a function G
In Python: emkernel.groups.get("m-3m"), emkernel.groups.C(7).
"""

CHECK = """\
Show what a group is, and whether all that is built on it is right: elements,
invariant forms, irreducible representations in the powers of the defining
representation V, equivariant linear maps (their number is compared with
characters), couplings a ⊗ b -> c, and a convolution. Each line is a relative
error beside its tolerance, or says that a number is exact.
"""

CHECK_END = """\
examples:
  emkernel check Oh                         # a group of the catalogue
  emkernel check my_group.py:G              # your own
  emkernel check my_group.py:G --order 10   # and it must have ten elements
  emkernel check 'SO(4)' --dimension 6 --degree 3
  emkernel check Lorentz --dimension 6 --form 'diag(1, -1, -1, -1)'
  emkernel check Rubik --quick

Generators describe some group whatever they are. That it is the one you mean
shows only against what you know of it: say that with --order, --dimension or
--form. Exit status: 1 if anything fails, 2 if the generators make no group.
"""

TRAIN = """\
Train a reference network whose layers are equivariant under a group. Tasks:

  nbody      charged particles in a field along z: how far does each move? the
             data are made on the spot
  qm9        molecules: predict a property, such as the dipole moment mu
  modelnet   point clouds: which shape is it?
  dielectric crystals: predict the dielectric tensor, 3 x 3
"""

TRAIN_END = """\
examples:
  emkernel train nbody                      # about a minute on one core
  emkernel train nbody --group my_group.py:G --epochs 10 --out runs/mine
  emkernel train nbody --group my_group.py:G --epochs 10 --out runs/mine --resume
  emkernel train qm9 --root data/qm9 --target mu --epochs 36 --hidden 64
  emkernel train modelnet --root data/modelnet --channels 16,32,64
  emkernel train dielectric --root data/dielectric.npz --target total
  emkernel train nbody --kernel fixed       # the baseline to compare with

--root of qm9 is or holds gdb9.sdf with gdb9.sdf.csv, dsgdb9nsd_*.xyz, or
qm9_*.npz; that of modelnet folders class/train/*.off, ply_data_*.h5, or
shapes.npz; that of dielectric is or holds dielectric.npz. The group must act
on 3 dimensions. The largest group that is a symmetry of the task serves best:
a smaller one has to learn the rest, under a larger one the task cannot be
fitted.
The folder of the run, --out, holds config.json, metrics.csv (each epoch),
results.json and checkpoints.
"""

STUDY = """\
Check a claim: train networks of equal size that differ in one thing, each from
several seeds, and write a table (NAME.csv, NAME.md) and a figure (NAME.png):

  groups      implicit kernel against fixed basis, under each group, on rotated
              shapes (figure 3 of the paper)
  attributes  fixed basis, implicit kernel, with bonds, with atoms, with both,
              on molecules (figure 4)
  qm9         the implicit kernel on properties of molecules (table 1)
  symmetry    no symmetry, a part, the right one, one that is too large, on
              particles in a field
  samples     error by the number of training systems, with the right symmetry
              and with none
"""

STUDY_END = """\
examples:
  emkernel study symmetry --quick
  emkernel study groups --root data/modelnet --small --groups SO2z O2z
  emkernel study attributes --root data/qm9 --target homo --jobs 2
  emkernel study qm9 --root data/qm9 --target mu gap U0 --seeds 3

Each run is one of emkernel train, in a folder of its own. Stopped, the same
command goes on where it was.
"""
