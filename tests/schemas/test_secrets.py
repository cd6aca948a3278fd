import base64
import random
import string

import pytest

from saliency_prompt.schemas.secrets import looks_secret


@pytest.mark.parametrize(
    "name",
    [
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_ACCESS_KEY_ID",
        "HF_TOKEN",
        "db_password",
        "DB_PASS",
        "PGPASSWORD",
        "WANDB_API_KEY",
        "APIKEY",
        "AZURE_STORAGE_CONNECTION_STRING",
        "AZURE_STORAGE_ACCOUNT_KEY",
        "AZURE_STORAGE_SAS",
        "SSH_PRIVATE_KEY",
        "GITHUB_PAT",
        "SENTRY_DSN",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "SIGNING_KEY",
        "PASSPHRASE",
    ],
)
def test_names_that_tell(name: str) -> None:
    assert looks_secret(name, "x")


@pytest.mark.parametrize(
    "value",
    [
        "AKIAIOSFODNN7EXAMPLE",
        "ghp_" + "a1B2" * 9,
        "postgres://me:letmein@db/photos",
        "https://x.blob.example/y?sv=1&sig=abc",
        "-----BEGIN RSA KEY-----",
        "eyJhbGciOiJIUzI1NiJ9.e30.x",
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "DefaultEndpointsProtocol=https;AccountKey=abc",
    ],
)
def test_shapes_that_tell(value: str) -> None:
    assert looks_secret("SETTING", value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_REGION", "eu-central-1"),
        ("AWS_ENDPOINT_URL_S3", "https://storage.internal.example:9000/bucket"),
        ("HTTPS_PROXY", "http://proxy.example:3128"),
        ("NO_PROXY", "localhost,127.0.0.1,.cluster.local,10.0.0.0/8,169.254.169.254"),
        ("GOOGLE_APPLICATION_CREDENTIALS", "/var/secrets/google/key.json"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "/var/run/secrets/eks.amazonaws.com/serviceaccount/token"),
        ("TOKENIZERS_PARALLELISM", "false"),
        ("NCCL_SOCKET_IFNAME", "eth0"),
        ("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True,max_split_size_mb:512"),
        ("LD_LIBRARY_PATH", "/usr/local/nvidia/lib64:/usr/lib/x86_64-linux-gnu"),
        ("AZURE_TENANT_ID", "72f988bf-86f1-41af-91ab-2d7cd011db47"),
        ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/saliency-prompt-labels-writer"),
        ("MODEL", "densecl-r50-in1k-200ep-caffe-stride-in-1x1"),
        ("NODES", "NVIDIA-H100-80GB-HBM3-MIG-1g.10gb"),
        ("STARTED", "2026-11-24T17:15:26.123456Z"),
        ("SERVICE", "my-saliency-prompt-service-account-for-labels-2026"),
        ("LIMIT", "10000000000000000000000000000000000000000"),
        ("CLASS", "com.example.MediumTermStorageServiceFactoryBean2"),
    ],
)
def test_usual_settings_are_none(name: str, value: str) -> None:
    assert not looks_secret(name, value)


MAKERS = {
    "hexadecimal": lambda rng: rng.randbytes(16).hex(),
    "long hexadecimal": lambda rng: rng.randbytes(32).hex(),
    "base64": lambda rng: base64.b64encode(rng.randbytes(30)).decode(),
    "base64 for URLs": lambda rng: base64.urlsafe_b64encode(rng.randbytes(24)).decode(),
    "letters and digits": lambda rng: "".join(rng.choices(string.ascii_letters + string.digits, k=24)),
    "small letters and digits": lambda rng: "".join(rng.choices(string.ascii_lowercase + string.digits, k=40)),
}


@pytest.mark.parametrize("maker", MAKERS)
def test_random_values_tell(maker: str) -> None:
    rng = random.Random(7)
    values = [MAKERS[maker](rng) for _ in range(500)]
    assert sum(looks_secret("SETTING", value) for value in values) >= 475  # a hint, no proof
