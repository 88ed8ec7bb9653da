"""Networks, data handling, training and evaluation shared by the bundles under ``bundles/``.

Imports inside the package are relative, so that a bundle can carry a copy of it under another name.
"""
