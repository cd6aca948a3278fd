import json
import os
import unicodedata
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus import BadCorpus, S3Photos, encode, scene
from saliency_prompt.pipeline.naming import image_id_from_name, locate
from saliency_prompt.pipeline.sources import Source, open_source, refuse_target_inside
from saliency_prompt.schemas.errors import UserError
from saliency_prompt.schemas.records import ImageRef
from saliency_prompt.stages.read import read_image_bytes
from unprivileged import unprivileged


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def names(source: Source) -> list[str]:
    return [ref.file_name for ref in source.refs()]


def write_coco(path: Path, *images: dict[str, object]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images}))
    return str(path)


def test_a_folder_goes_by_whole_relative_path(tmp_path: Path) -> None:
    touch(tmp_path, "b.jpg", "a/z.PNG", "a/deep/x.webp", "a-1.jpeg", "a.jpg", "a0.jpg", "ä.jpg")
    touch(tmp_path, "notes.txt", "a/list.json", ".hidden.jpg", ".cache/x.jpg")
    source = open_source(str(tmp_path))
    found = names(source)
    assert found == ["a-1.jpeg", "a.jpg", "a/deep/x.webp", "a/z.PNG", "a0.jpg", "b.jpg", "ä.jpg"]
    assert found == sorted(found, key=str.encode)
    assert source.ignored == 2
    refs = list(source.refs())  # a second reading starts anew
    assert source.ignored == 2
    assert [Path(ref.uri).read_bytes().decode() for ref in refs] == found
    assert [ref.size_bytes for ref in refs] == [len(name.encode()) for name in found]
    assert len({ref.image_id for ref in refs}) == len(refs)


def test_files_without_a_suffix_are_known_by_their_first_bytes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path, "README", "a.txt", "b.txt", "c.HEIC", "x/Makefile")
    (tmp_path / "x" / "photo").write_bytes(encode(scene(0)[0]))
    (tmp_path / "picture").write_bytes(encode(scene(0)[0], "PNG"))
    (tmp_path / "empty").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe")
    source = open_source(str(tmp_path))
    assert names(source) == ["picture", "x/photo"]
    assert source.ignored == 7
    assert "7 files are no photographs and were passed over (4 no suffix, 2 .txt, 1 .heic)" in caplog.text
    assert names(open_source(str(tmp_path / "picture"))) == ["picture"]


def test_a_root_that_does_nothing_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    for photos in (str(tmp_path), f"{tmp_path}/*.jpg", str(tmp_path / "a.jpg"), "s3://bucket/photos"):
        with pytest.raises(UserError, match="leave --root out"):
            open_source(photos, root=str(tmp_path))


def test_a_target_inside_the_photographs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "photos/a.jpg", "photos/sub/b.jpg", "list.txt")
    (tmp_path / "link").symlink_to("photos/sub")
    monkeypatch.chdir(tmp_path / "photos")
    inside = [str(tmp_path / "photos" / "out"), "out", ".", "sub/../out", str(tmp_path / "link" / "out")]
    outside = [str(tmp_path / "photos-out"), "../out", "s3://bucket/out", str(tmp_path)]
    for photos in (str(tmp_path / "photos"), f"{tmp_path}/photos/**/*.jpg"):
        for out in inside:
            with pytest.raises(UserError, match="inside the photographs"):
                refuse_target_inside(out, open_source(photos))
        for out in outside:
            refuse_target_inside(out, open_source(photos))
    for photos in (f"{tmp_path}/photos/*.jpg", "a.jpg", str(tmp_path / "list.txt")):
        refuse_target_inside("out", open_source(photos))
    with pytest.raises(UserError, match="inside the photographs"):
        refuse_target_inside("s3://bucket/photos/out/", open_source("s3://bucket/photos/"))
    refuse_target_inside("s3://bucket/photos-out", open_source("s3://bucket/photos/"))


def test_ids_and_names_do_not_depend_on_place_or_neighbours(tmp_path: Path) -> None:
    touch(tmp_path / "one", "x/a.jpg", "x/b.jpg")
    touch(tmp_path / "two", "0.jpg", "x/b.jpg", "x/c.jpg")
    one, two = ({r.file_name: r.image_id for r in open_source(str(tmp_path / n)).refs()} for n in ("one", "two"))
    assert one["x/b.jpg"] == two["x/b.jpg"]


def test_globs_select_from_the_same_walk(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "a/2.png", "a/b/3.jpg", "c/4.jpg", "5.jpg", "a/6.txt", "a/.7.jpg")
    touch(tmp_path, "a/b/a/8.jpg")

    def glob(pattern: str) -> list[str]:
        return names(open_source(f"{tmp_path}/{pattern}"))

    assert glob("*.jpg") == ["5.jpg"]
    assert glob("*/*.jpg") == ["a/1.jpg", "c/4.jpg"]
    assert glob("a/*") == ["1.jpg", "2.png"]  # names start at the first wildcard
    assert glob("**/*.jpg") == ["5.jpg", "a/1.jpg", "a/b/3.jpg", "a/b/a/8.jpg", "c/4.jpg"]
    assert glob("**") == glob("**/**/*") == names(open_source(str(tmp_path)))
    assert glob("**/a/*.jpg") == ["a/1.jpg", "a/b/a/8.jpg"]
    assert glob("[ac]/?.jpg") == ["a/1.jpg", "c/4.jpg"]
    with pytest.raises(UserError, match="no image"):
        glob("*.webp")
    source = open_source(f"{tmp_path}/a/*")
    assert len(names(source)) == 2
    assert source.ignored == 1
    assert source.description == f"{tmp_path.resolve()}/a/*"


@settings(deadline=None, max_examples=25)
@given(
    files=st.sets(st.text("ab-.0é", min_size=1, max_size=3).map(lambda stem: f"x{stem}.jpg"), min_size=1, max_size=6),
    folders=st.lists(st.sampled_from(["", "a", "a/b", "a-", "a0", "é"]), min_size=1, max_size=4),
)
def test_every_photograph_once_in_order(
    tmp_path_factory: pytest.TempPathFactory, files: set[str], folders: list[str]
) -> None:
    root = tmp_path_factory.mktemp("walk")
    paths = {str(PurePosixPath(folder) / name) for folder in folders for name in files}
    touch(root, *paths)
    assert names(open_source(str(root))) == sorted(paths, key=str.encode)


def test_a_folder_whose_name_looks_like_a_pattern_and_a_single_photograph(tmp_path: Path) -> None:
    touch(tmp_path, "set[1]/a[0].jpg", "set[1]/a0.jpg")
    assert names(open_source(str(tmp_path / "set[1]"))) == ["a0.jpg", "a[0].jpg"]
    assert names(open_source(str(tmp_path / "set[1]" / "a[0].jpg"))) == ["a[0].jpg"]


@pytest.mark.parametrize("follow", [True, False])
def test_links_are_followed_unless_they_may_not_lead_out(bad_corpus: BadCorpus, follow: bool) -> None:
    refs = {ref.file_name: ref for ref in open_source(str(bad_corpus.folder), follow_links=follow).refs()}
    assert refs["link_in.jpg"].uri
    assert bool(refs["link_out.jpg"].uri) == follow
    assert refs["missing.jpg"].size_bytes is None
    assert not any(name.startswith("circle") for name in refs)


def test_a_root_that_is_a_link_itself_is_fine(tmp_path: Path) -> None:
    touch(tmp_path, "real/a.jpg")
    (tmp_path / "real" / "b.jpg").symlink_to("a.jpg")
    (tmp_path / "link").symlink_to("real")
    source = open_source(str(tmp_path / "link"))
    assert all(ref.uri for ref in source.refs())
    assert source.description == open_source(str(tmp_path / "real")).description


def test_text_file(tmp_path: Path) -> None:
    touch(tmp_path, "set/a.jpg", "b.jpg", "c.jpg")
    listing = tmp_path / "set" / "list.txt"
    lines = ["\ufeff# photographs", "", "./a.jpg", f"  {tmp_path}/b.jpg  ", "../c.jpg", "s3://x/k.jpg", "not there"]
    listing.write_text("\r\n".join(lines), encoding="utf-8")
    refs = list(open_source(str(listing)).refs())
    assert [ref.file_name for ref in refs] == ["a.jpg", f"{tmp_path}/b.jpg", "../c.jpg", "s3://x/k.jpg", "not there"]
    assert [read_image_bytes(ref, 100) for ref in refs[:3]] == [b"set/a.jpg", b"b.jpg", b"c.jpg"]
    assert refs[3].uri == "s3://x/k.jpg"
    listing.write_text("set/a.jpg\n../out.jpg\n/abs.jpg\n")
    inside = list(open_source(str(listing), root=str(tmp_path)).refs())
    assert [bool(ref.uri) for ref in inside] == [True, False, False]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"# nothing\n", "lists no image"),
        (b"https://host/a.jpg?token=1\n", "query"),
        (b"a.jpg\n\xff\xfe\n", "not UTF-8"),
    ],
)
def test_bad_text_files(tmp_path: Path, content: bytes, message: str) -> None:
    listing = tmp_path / "list.txt"
    listing.write_bytes(content)
    with pytest.raises(UserError, match=message):
        list(open_source(str(listing)).refs())


def test_coco_ids_sizes_and_order(tmp_path: Path) -> None:
    touch(tmp_path, "b.jpg", "a.jpg")
    path = write_coco(
        tmp_path / "list.json",
        {"id": 9, "file_name": "b.jpg", "width": 4, "height": 3},
        {"file_name": "a.jpg"},
        {"id": 0, "file_name": "gone.jpg"},
    )
    refs = list(open_source(path).refs())
    assert refs[0] == ImageRef(9, "b.jpg", str(tmp_path.resolve() / "b.jpg"), None, 4, 3)
    assert refs[1].image_id == image_id_from_name("a.jpg")
    assert (refs[2].image_id, refs[2].width) == (0, None)


@pytest.mark.parametrize(
    ("listing", "photo"),
    [
        ("list.json", "a.jpg"),
        ("list.json", "images/a.jpg"),
        ("image_info_unlabeled2017.json", "unlabeled2017/a.jpg"),
        ("annotations/instances_val2017.json", "val2017/a.jpg"),
    ],
)
def test_coco_images_are_found_around_the_json(tmp_path: Path, listing: str, photo: str) -> None:
    touch(tmp_path, photo)
    path = write_coco(tmp_path / listing, {"id": 1, "file_name": "gone.jpg"}, {"id": 2, "file_name": "a.jpg"})
    assert list(open_source(path).refs())[1].uri == str(tmp_path.resolve() / photo)


def test_coco_images_in_a_bucket(tmp_path: Path) -> None:
    path = write_coco(tmp_path / "l.json", {"id": 1, "file_name": "x/a.jpg"}, {"id": 2, "file_name": "../a.jpg"})
    assert [ref.uri for ref in open_source(path, root="s3://coco/val/").refs()] == ["s3://coco/val/x/a.jpg", ""]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[]", "no list `images`"),
        ('{"annotations": []}', "no list `images`"),
        ('{"images": ["a.jpg"]}', "no list `images`"),
        ('{"images": []}', "lists no image"),
        ('{"images": [{"id": 1}]}', "Image 0 .* no `file_name`"),
        ('{"images": [{"id": 1, "file_name": "elsewhere.jpg"}]}', "not beside it"),
        ('{"images": [{"id": "7", "file_name": "a.jpg"}]}', "id = '7'"),
        ('{"images": [{"id": 9223372036854775808, "file_name": "a.jpg"}]}', "whole number"),
        ('{"images": [{"id": 1, "file_name": "a.jpg", "width": 0.5}]}', "width = 0.5"),
    ],
)
def test_bad_coco_files(tmp_path: Path, content: str, message: str) -> None:
    touch(tmp_path, "a.jpg")
    path = tmp_path / "list.json"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        list(open_source(str(path)).refs())


def test_duplicate_ids_are_refused(bad_corpus: BadCorpus) -> None:
    with pytest.raises(UserError, match=r"Images 0 and 1 .* share the id 1"):
        list(open_source(str(bad_corpus.duplicate_ids), root=str(bad_corpus.folder)).refs())


def test_what_is_missing_gets_a_suggestion(tmp_path: Path) -> None:
    touch(tmp_path, "photos/a.jpg", "list.txt")
    for wrong in ("photo", "photo/deep/down", "photo/*.jpg"):
        with pytest.raises(UserError, match=f"did you mean {tmp_path}/photos"):
            open_source(str(tmp_path / wrong))
    with pytest.raises(UserError, match=r"check what is in"):
        open_source(str(tmp_path / "quite-else"))
    with pytest.raises(UserError, match="did you mean"):
        open_source(str(tmp_path / "list.txt"), root=str(tmp_path / "phots"))
    with pytest.raises(UserError, match=r"no image in .*, only 1 other files"):
        list(open_source(str(tmp_path / "l*")).refs())


def test_a_folder_without_permission_stops_the_listing() -> None:
    with unprivileged() as folder:
        touch(folder, "a.jpg", "closed/b.jpg")
        (folder / "closed").chmod(0)
        with pytest.raises(UserError, match="closed cannot be listed"):
            list(open_source(str(folder)).refs())


@settings(deadline=None, max_examples=50)
@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=40))
def test_ids_are_positive_and_blind_to_unicode_form(name: str) -> None:
    forms = {image_id_from_name(unicodedata.normalize(form, name)) for form in ("NFC", "NFD")}
    assert len(forms) == 1
    assert 0 < forms.pop() < 2**63


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from(["..", ".", "", "a", "out", "in"]), min_size=1, max_size=6).map("/".join))
def test_no_name_leads_out_of_a_root(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    base = tmp_path_factory.mktemp("escape")
    root = base / "root"
    (root / "a").mkdir(parents=True)
    (root / "out").symlink_to(base)
    (root / "in").symlink_to("a")
    uri = locate(str(root.resolve()), name)
    assert not uri or root.resolve() in Path(uri).resolve().parents
    assert ".." not in locate("s3://bucket", name).split("/")


def test_a_bucket_lists_like_a_folder(s3_photos: S3Photos, tmp_path: Path) -> None:
    keys = ["a-1.jpg", "a/z.PNG", "a0.jpg", "b c#d?e%20.jpg", "é.webp", "a/.h/x.jpg", "notes.txt", "a.jpg"]
    touch(tmp_path, *keys)
    for key in keys:
        s3_photos.put(f"set/{key}", key.encode())
    s3_photos.put("set2/other.jpg", b"")
    bucket, folder = open_source(f"{s3_photos.url}/set/"), open_source(str(tmp_path))
    in_bucket, in_folder = list(bucket.refs()), list(folder.refs())
    assert [(r.image_id, r.file_name, r.size_bytes) for r in in_bucket] == [
        (r.image_id, r.file_name, r.size_bytes) for r in in_folder
    ]
    assert bucket.ignored == folder.ignored == 1
    assert bucket.description == f"{s3_photos.url}/set"
    assert [read_image_bytes(ref, 100) for ref in in_bucket] == [read_image_bytes(ref, 100) for ref in in_folder]
    assert "set2/other.jpg" in names(open_source(s3_photos.url))


def test_many_pages_of_a_bucket(s3_photos: S3Photos, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "7")
    for i in range(30):
        s3_photos.put(f"{i:03d}.jpg", b"")
    assert s3_photos.client.list_objects_v2(Bucket=s3_photos.name)["IsTruncated"]
    assert names(open_source(s3_photos.url)) == [f"{i:03d}.jpg" for i in range(30)]


def test_buckets_that_cannot_be_listed(s3_photos: S3Photos) -> None:
    with pytest.raises(UserError, match="cannot be listed"):
        list(open_source("s3://no-such-bucket/x").refs())
    with pytest.raises(UserError, match="no image"):
        list(open_source(f"{s3_photos.url}/empty").refs())
    with pytest.raises(UserError, match="text file"):
        open_source("https://host/photos/")
