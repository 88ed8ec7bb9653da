"""Provide the networks, data handling, training and evaluation that the bundles under ``bundles/`` share.

Imports inside the package are relative, so that a bundle can carry a copy of it under another name.
"""
