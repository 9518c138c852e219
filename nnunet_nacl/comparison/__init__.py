"""Several trainers on the same cases: values, statistics over cases, ranks, tables and figures."""
