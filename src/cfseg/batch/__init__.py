"""Many scans: each input is accounted for, one failure never stops the others, work resumes."""

from cfseg.batch.files import stamp
from cfseg.batch.jobs import Job, plan_jobs, read_shard
from cfseg.batch.places import Naming, find_input, inputs_by_case, name_inputs, naming
from cfseg.batch.run import predict_many
from cfseg.batch.summary import CaseStatus, Summary

__all__ = [
    "CaseStatus",
    "Job",
    "Naming",
    "Summary",
    "find_input",
    "inputs_by_case",
    "name_inputs",
    "naming",
    "plan_jobs",
    "predict_many",
    "read_shard",
    "stamp",
]
