import pytest

from benchmarks import source_cache


@pytest.mark.long
def test_stages_open_every_object_of_a_bucket_with_room_for_a_few(tmp_path, bucket):
    """What four shards at work have in use, two videos for each of two workers, is there beside what is kept."""
    film = source_cache.small_film(tmp_path / "film.mp4")
    size_bytes = len(film) + 20_000
    source_cache.fill(bucket, film, 24, size_bytes)
    found = source_cache.measure(f"s3://{bucket.name}/in", tmp_path, 18 * size_bytes, shard_files=4)
    assert list(found) == ["videos", "shots", "latents"]
    assert {(each.account.given, each.account.ok) for each in found.values()} == {(24, 24)}
    for each in found.values():
        assert 10 * size_bytes < each.most_bytes <= 18 * size_bytes + 20
    kept = [path for path in (tmp_path / "media").iterdir() if len(path.name) == 64]
    assert len(kept) <= 18
