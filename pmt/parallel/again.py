"""What is said wherever a run of several processes ends early; needs no JAX."""

AGAIN = (
    "what was finished is kept if --out was given, so give the same command on every host again "
    "to go on"
)
