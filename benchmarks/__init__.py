"""Our job beside its peers' in one run, with the correctness of the answer recorded beside time."""
