"""Several trainers on the same cases: values, statistics over cases, tables and figures."""
