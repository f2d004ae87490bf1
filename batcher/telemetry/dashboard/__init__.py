"""The web page of a running pipeline: what it is doing, why it waits, and what it refused.

`recorder` hears of batches and failures as metrics do, and `letters` remembers some dead letters. `observation` makes
plain data of one moment of a process, which is also what a worker tells its parent. `team` makes one of several of
these. `judgement` is the first glance, `history` the last hour. `feed` takes an observation a second and hands it to
the open pages. `pages` has paths, headers and limits, `control` what may be told. The files in `assets` are served as
they are.
"""
