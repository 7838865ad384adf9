"""The training room: seeds, batches, loops, checkpoints and evaluation.

Knows supernets and strategies; must not know studies, data sets, trials or trackers. Import from its modules.
"""
