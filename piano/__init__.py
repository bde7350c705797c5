"""Everything beyond the core in utils.py: recordings, notes, stems, pictures, results, the command line."""
