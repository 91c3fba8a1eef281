"""How good is the space?"""
