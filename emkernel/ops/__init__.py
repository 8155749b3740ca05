"""The computations of the point convolution: neighbour order, segment reductions, contractions."""
