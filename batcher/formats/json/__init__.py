"""JSON as a format: whole columns with Arrow where that is exact, one record at a time where it is not."""
