"""Values taken apart: the words of a text, the patches of a picture, the spans of a sound, the nodes and edges of a graph.

Processors use these functions for their method ``parts``, those of other packages as well.
"""
