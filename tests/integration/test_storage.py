"""The storage's conformance suite once more, on Ceph over TLS.

TLS matters: over it, boto3's default trailer checksums are answered with an error by this server.
"""

import os
from collections.abc import Iterator
from uuid import uuid4

import pytest

from tests.fleet.servers import ACCESS_KEY, SECRET_KEY, CephServer

# collected here, these take the `store` of this module
from tests.unit.storage.test_conformance import (  # noqa: F401
    table,
    test_a_folder_is_no_object,
    test_a_missing_object_is_told_by_name,
    test_a_missing_table_is_missing,
    test_a_table_comes_back_as_it_was,
    test_a_version_changes_with_the_bytes_and_with_them_alone,
    test_bytes_come_back_as_they_were,
    test_deleting_what_is_not_there_is_no_error,
    test_more_objects_than_a_page_of_the_listing_holds,
    test_objects_are_listed_by_prefix,
    test_overwriting_replaces_the_whole_object,
    test_ranges,
    test_some_columns_of_a_table,
    test_the_address_of_a_key_leads_to_the_object,
    test_the_first_level_of_folders,
    test_what_is_written_can_be_read_listed_and_deleted,
    test_what_the_listing_says_of_an_object_is_true,
)
from workers.storage import s3
from workers.storage.s3 import S3Store

BUCKET = "conformance"


@pytest.fixture(scope="module")
def tls_bucket(ceph: CephServer) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_S3", ceph.tls_endpoint)
        patch.setenv("AWS_CA_BUNDLE", str(ceph.certificate))
        patch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        patch.setenv("AWS_REGION", "us-east-1")
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        s3._clients.clear()
        s3.client().create_bucket(Bucket=BUCKET)
        yield BUCKET
    s3._clients.clear()


@pytest.fixture
def store(tls_bucket: str) -> S3Store:
    return S3Store(tls_bucket, f"{uuid4().hex}/prefix")
