"""How well cheap proxies rank candidates: who is trained how, what the table of trainings says, which proxy to use.

    findings = analyse(read_table(path))               # summary: statistics on a table alone, no torch
    findings.recommendation.sentences[0]
    document(findings)                                 # the same as JSON

`fidelity`, `candidates`, `runner`, `worker` train; `proxies`, `statistics`, `extrapolation`, `combination`,
`recommendation`, `summary` judge. Nothing is imported here: a worker needs no statistics.
"""
