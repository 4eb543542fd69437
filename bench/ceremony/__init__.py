"""`python -m bench ceremony`: a whole signing session beside the cost of its cryptography alone."""
