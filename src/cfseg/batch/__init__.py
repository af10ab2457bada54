"""Many scans: each input is accounted for, one failure never stops the others, work resumes."""

from cfseg.batch.files import stamp
from cfseg.batch.jobs import Job, is_file_name, plan_jobs, read_shard
from cfseg.batch.places import Naming, find_input, name_inputs, naming
from cfseg.batch.run import predict_many
from cfseg.batch.summary import CaseStatus, Summary

__all__ = [
    "CaseStatus",
    "Job",
    "Naming",
    "Summary",
    "find_input",
    "is_file_name",
    "name_inputs",
    "naming",
    "plan_jobs",
    "predict_many",
    "read_shard",
    "stamp",
]
