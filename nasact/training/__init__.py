"""The training room: seeds, batches, loops, checkpoints and metrics.

Knows supernets and strategies; nothing of studies, data sets, trials or trackers. Import from its modules.
"""
