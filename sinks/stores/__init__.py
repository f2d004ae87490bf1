"""Object stores, for every sink that writes into one: where a URI points, what can be set, what a store answers.

    options.py     `--parquet.option NAME=VALUE` and its like: the names, and what each may be
    location.py    a URI such as s3://bucket/prefix, and the options in it
    credentials.py the shared files of AWS (~/.aws), which the client does not read by itself
    answer.py      the store's own words in an error, and whether waiting helps
    bucket.py      what can be asked of a bucket
    ranged_file.py an object as a file to read from
    calls.py       calls with deadlines of ours, that a stop does not have to wait for
    connection.py  a client from all of it

Nothing here loads `obstore` before something is connected (extra `object-store`).
"""
