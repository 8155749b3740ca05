"""Equivariant linear maps, irreducible representations and couplings, found numerically for any matrix group."""
