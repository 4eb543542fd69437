"""Floods of one node: what it keeps of its memory, its time and its manners meanwhile."""
