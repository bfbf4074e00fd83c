"""SLOT's engine: frozen hidden states in, fitted distributions out, with the gradient written out by hand."""
