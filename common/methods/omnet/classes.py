"""Define the classes of OM-Net and its three tasks (section III-A); class 0 is everything outside the brain."""

from __future__ import annotations

NON_ENHANCING, OEDEMA, ENHANCING, OTHER_BRAIN = 1, 2, 3, 4  # the first includes necrosis
TUMOUR, CORE = (NON_ENHANCING, OEDEMA, ENHANCING), (NON_ENHANCING, ENHANCING)
TASKS = ("coarse", "tumour", "enhancing")
