"""Many scans: each input is accounted for, one failure never stops the others, work resumes."""

from cfseg.batch.files import file_digest, stamp
from cfseg.batch.jobs import Job, is_file_name, plan_jobs, read_shard
from cfseg.batch.run import predict_many
from cfseg.batch.summary import CaseStatus, Summary

__all__ = [
    "CaseStatus",
    "Job",
    "Summary",
    "file_digest",
    "is_file_name",
    "plan_jobs",
    "predict_many",
    "read_shard",
    "stamp",
]
