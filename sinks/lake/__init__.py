"""What the sinks of lake tables share: a table that keeps, in its own transaction, how far each partition was loaded.

    coordinate   the columns that say from which record a row was made, and their condition in a table
    position     V(p), the next offset of a partition: which rows of a block may be there already, and what to note
    types        Arrow's types as a lake table takes them, and values turned into them
    memory       the schema of the decoder, kept in a property of the table
    partition    what a table is partitioned by, and columns computed for tables that have no such functions
    metric       how long commits take, and how many versions there are
    settings     the options that all lake tables have
    table        what the sink asks of a table: `LakeTable`
    sink         the sink: one commit for each block, over all its partitions

A block is checked and committed from one snapshot. Who loses a race is told so (SinkUnavailable), and the same block
comes again and is checked again.
"""
