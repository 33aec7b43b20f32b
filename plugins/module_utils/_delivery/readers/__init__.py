# SPDX-License-Identifier: Apache-2.0
"""Model files of anybody, read in a process of its own that has no rights and bounds on everything.

- ``questions``: what is asked of a file; the only part that others use.
- ``runner``: starts the process, bounds it, and says how it ended where it gave no answer.
- ``child``: the process itself: gives up its rights, then reads.
- ``tasks``: what it does there.
- ``answers``: values as JSON, and back, believing nothing.
"""
