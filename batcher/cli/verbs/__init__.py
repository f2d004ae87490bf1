"""The verbs of the command line, one module each."""

from typing import Final

VERBS: Final = {
    "run": "load topics into a target (the default verb)",
    "demo": "show the whole thing on this machine, with nothing else running",
    "produce": "send files, a pipe or made-up events to a topic",
    "queue": "make an embedded queue; publish, pull and acknowledge messages; replay them",
    "peek": "show records of a topic, decoded",
    "schema": "show what a topic holds, and make the table for it",
    "check": "show how the records of a topic fit a target, before anything is loaded",
    "doctor": "check brokers, rights, target, disk, clock, limits and TLS, and say what to do",
    "lag": "show how far a group is behind; no process needs to run",
    "top": "watch running processes",
    "dlq": "list, show and count dead letters, load them again, export or purge them",
    "verify": "prove that what was read is in the target or a dead letter",
    "repair": "load what verify finds missing, and remove duplicates",
    "bench": "measure your own records and target, and say what limits the speed",
    "config": "show the settings and where each comes from, or write a file to begin with",
    "plugins": "list the sources, formats, sinks and dead-letter queues there are",
    "completion": "print what completes verbs, flags and values in bash, zsh or fish",
}
"""The verbs with what they do; each is a module of `batcher.cli.verbs` with a `main(argv) -> int`."""
