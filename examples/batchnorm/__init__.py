"""The experiments of examples/batchnorm_paper.py: what batch normalization does, after Ioffe and Szegedy (1502.03167).

``nets`` builds the nets with and without it, ``training`` trains them, ``experiments`` has a function for each
question, ``figures`` draws the answers and ``page`` writes them down.
"""
