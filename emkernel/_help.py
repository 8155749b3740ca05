"""What ``--help`` teaches: the flow from generators to a trained network, with commands to copy."""

MAIN = """\
Steerable point convolutions for any matrix group given by its generators.

1. Define a group. Put this in a file my_group.py; it is the symmetry of your data, as matrices:

     import numpy as np
     import emkernel as ek

     c, s = np.cos(2 * np.pi / 5), np.sin(2 * np.pi / 5)
     turn = [[c, -s, 0], [s, c, 0], [0, 0, 1]]              # fivefold rotation about z
     G = ek.MatrixGroup("C5v", discrete_generators=[turn, np.diag([1, -1, 1])])

   discrete_generators are elements h of the group; lie_algebra, its other argument, are generators A of
   one-parameter subgroups exp(tA). Groups that people use have names: `emkernel groups` lists them.

2. Check it. Say what you know of the group that you mean, here that it has ten elements:

     emkernel check my_group.py:G --order 10

   prints what the group is and how well everything that is built on it holds.

3. Train. A network whose layers are equivariant under your group, on data that are made on the spot:

     emkernel train nbody --group my_group.py:G
"""

MAIN_END = """\
examples:
  emkernel groups
  emkernel check Oh
  emkernel check my_group.py:G --order 10
  emkernel train nbody --group O2z
  emkernel train qm9 --root data/qm9 --epochs 40
  emkernel train --help                     # each command has its own

In Python the next step is a layer of your own, emkernel.nn.PointConv: `import emkernel; help(emkernel)`.
Exit status: 0 done, 1 a check failed, 2 wrong input, 130 interrupted.
"""

GROUPS = """\
List the groups that have a name, with the dimension d of the space that they act on, the number of their elements,
the dimension of their Lie algebra, and the Hermann-Mauguin and Schoenflies symbols of point groups.
"""

GROUPS_END = """\
examples:
  emkernel groups
Wherever a group is asked for, any of these names will do, a family with its numbers, or a file:
  emkernel check Oh                         # by its name here
  emkernel check m-3m                       # the same, by its Hermann-Mauguin symbol
  emkernel check 'C(7)'                     # a member of a family
  emkernel check my_group.py:G              # a MatrixGroup G, or a function G() that returns one
In Python: emkernel.groups.get("m-3m"), emkernel.groups.C(7).
"""

CHECK = """\
Show what a group is, and whether everything that is built on it is right: its elements and invariant forms, its
irreducible representations in powers of the defining representation V, equivariant linear maps (their number is
compared with characters), couplings a ⊗ b -> c, and a convolution. Each line is a relative error beside its tolerance.
"""

CHECK_END = """\
examples:
  emkernel check Oh                         # a group of the catalogue
  emkernel check my_group.py:G              # your own
  emkernel check my_group.py:G --order 10   # and it must have ten elements
  emkernel check 'SO(4)' --dimension 6 --degree 3
  emkernel check Lorentz --dimension 6 --form 'diag(1, -1, -1, -1)'
  emkernel check Rubik --quick

Generators describe some group whatever they are. That it is the one you mean shows only against what you know
of it: say it with --order, --dimension or --form. Exit status 1 if anything fails, 2 if the generators are none.
"""

TRAIN = """\
Train a reference network whose layers are equivariant under a group. Tasks:

  nbody      charged particles in a field along z: predict how far each moves; the data are made on the spot
  qm9        molecules: predict a property, such as the dipole moment mu
  modelnet   point clouds: name the shape
"""

TRAIN_END = """\
examples:
  emkernel train nbody                      # about a minute on one core
  emkernel train nbody --group my_group.py:G --epochs 10 --out runs/mine
  emkernel train nbody --group my_group.py:G --epochs 10 --out runs/mine --resume
  emkernel train qm9 --root data/qm9 --target mu --epochs 36 --hidden 64
  emkernel train modelnet --root data/modelnet --rotations so3 --channels 16,32,64
  emkernel train nbody --kernel fixed       # the baseline to compare with

--root of qm9 is or holds gdb9.sdf with gdb9.sdf.csv, dsgdb9nsd_*.xyz, or qm9_*.npz; of modelnet folders
class/train/*.off, ply_data_*.h5, or shapes.npz. The group must act on 3 dimensions. The largest group that is a
symmetry of the task serves best: a smaller one has to learn the rest, a larger one cannot fit.
The folder of the run, --out, holds config.json, metrics.csv (each epoch), results.json and checkpoints.
"""
