"""The engine: what lifts rules of one array, or of one stack of matrices, over pytrees."""
