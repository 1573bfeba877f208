"""Decoding and fusion of candidate boxes, against torchvision and plain loops."""

import pytest
import torch
from torch import Tensor

from handwriting.models.detections import (
    DetectionModel,
    best_of_each_place,
    decode_detections,
    fuse,
    intersection_over_union,
    to_image,
)
from handwriting.models.sequence_model import Outputs


def candidates(*found: tuple[tuple[float, float, float, float], int, float], classes: int = 3) -> Outputs:
    """The outputs for one image: of each candidate the box, its class and its score; the last is padding."""
    boxes, probabilities = torch.zeros(1, len(found) + 1, 4), torch.zeros(1, len(found) + 1, classes)
    for index, (box, label, score) in enumerate(found):
        boxes[0, index], probabilities[0, index, label] = torch.tensor(box), score
    return {"boxes": boxes, "probabilities": probabilities}


def decoded(outputs: Outputs, threshold: float = 0.5, overlap: float = 0.5):
    (transcript,) = decode_detections(outputs["boxes"], outputs["probabilities"], threshold, overlap)
    return transcript


def random_candidates(images: int, boxes: int, seed: int) -> Outputs:
    generator = torch.Generator().manual_seed(seed)
    corners = 30 * torch.rand(images, boxes, 2, generator=generator)
    sides = 5 + 20 * torch.rand(images, boxes, 2, generator=generator)
    probabilities = torch.rand(images, boxes, 4, generator=generator).mul(6).softmax(2)[..., :3]
    return {"boxes": torch.cat([corners, corners + sides], 2), "probabilities": probabilities}


def test_overlaps_are_those_of_torchvision():
    from torchvision.ops import box_iou

    (boxes, others), _ = random_candidates(2, 30, 0).values()
    torch.testing.assert_close(intersection_over_union(boxes[:, None], others), box_iou(boxes, others))


def test_empty_boxes_overlap_nothing():
    empty, box = torch.zeros(4), torch.tensor([0.0, 0, 5, 5])
    assert intersection_over_union(empty, empty) == intersection_over_union(empty, box) == 0


@pytest.mark.parametrize("overlap", [0.1, 0.3, 0.5])
def test_suppression_is_that_of_torchvision_whatever_the_classes(overlap: float):
    from torchvision.ops import nms

    boxes, probabilities = random_candidates(20, 30, 1).values()
    scores = probabilities.amax(2)
    left = best_of_each_place(boxes, scores, overlap)
    for image in range(20):
        assert left[image].nonzero()[:, 0].tolist() == sorted(nms(boxes[image], scores[image], overlap).tolist())
    assert 0 < left.sum() < left.numel()


def test_digits_are_ordered_by_the_centres_of_their_boxes():
    wide, left, right = (0.0, 0.0, 40.0, 9.0), (2.0, 20.0, 10.0, 40.0), (30.0, 20.0, 38.0, 40.0)
    found = decoded(candidates((right, 2, 0.9), (wide, 1, 0.8), (left, 0, 0.7)))
    assert found.labels == (0, 1, 2)
    assert found.boxes == (left, wide, right)
    assert found.probabilities == pytest.approx((0.7, 0.8, 0.9))


def test_the_probability_is_that_every_candidate_left_is_a_digit_or_not():
    first, same, second, third = (0, 0, 10, 20), (1, 0, 11, 20), (20, 0, 30, 20), (40, 0, 50, 20)
    found = decoded(candidates((first, 1, 0.9), (same, 2, 0.8), (second, 0, 0.6), (third, 0, 0.3)))
    assert found.labels == (1, 0)
    assert found.probability == pytest.approx(0.9 * 0.6 * (1 - 0.3))


def test_no_digit_is_a_transcript_too():
    found = decoded(candidates(((0, 0, 10, 20), 1, 0.2)))
    assert (found.labels, found.boxes) == ((), ())
    assert found.probability == pytest.approx(0.8)
    assert decoded(candidates()).probability == 1


def test_the_threshold_is_included_and_padding_never_is_a_digit():
    outputs = candidates(((0, 0, 10, 20), 1, 0.25))
    assert decoded(outputs, threshold=0.25).labels == (1,)
    assert decoded(outputs, threshold=0.26).labels == ()
    assert decoded(outputs, threshold=0.0).labels == (1,)


def test_each_image_is_decoded_as_if_it_were_alone():
    boxes, probabilities = random_candidates(10, 20, 2).values()
    alone = [decode_detections(boxes[i : i + 1], probabilities[i : i + 1], 0.6, 0.4)[0] for i in range(10)]
    assert decode_detections(boxes, probabilities, 0.6, 0.4) == alone
    assert len({len(one.labels) for one in alone}) > 1


def test_two_boxes_of_a_digit_are_averaged_by_their_scores():
    first, second = candidates(((0, 0, 10, 10), 1, 0.8)), candidates(((3, 0, 13, 10), 1, 0.4))
    fused = fuse([first, second], [None, None])
    torch.testing.assert_close(fused["boxes"][0, 0], torch.tensor([1.0, 0.0, 11.0, 10.0]))
    torch.testing.assert_close(fused["probabilities"][0, 0], torch.tensor([0.0, 0.6, 0.0]))
    assert not fused["probabilities"][0, 1:].any()


def test_a_member_that_missed_a_digit_counts():
    several = [candidates(((0, 0, 10, 10), 1, 0.9)), candidates(), candidates(((40, 0, 50, 10), 2, 0.6))]
    fused = fuse(several, [None] * 3)
    assert fused["probabilities"].amax(2)[0].tolist() == pytest.approx([0.3, 0.2])
    torch.testing.assert_close(fused["boxes"][0], torch.tensor([[0.0, 0, 10, 10], [40, 0, 50, 10]]))


def test_members_that_disagree_on_the_class_of_a_digit_share_it():
    several = [candidates(((0, 0, 10, 10), 1, 0.9)), candidates(((0, 0, 10, 10), 2, 0.5))]
    torch.testing.assert_close(fuse(several, [None, None])["probabilities"][0, 0], torch.tensor([0.0, 0.45, 0.25]))


def test_a_member_has_one_vote_for_a_digit_however_many_boxes_it_has():
    doubtful = candidates(((0, 0, 10, 10), 1, 0.6), ((1, 0, 11, 10), 1, 0.55), ((0, 1, 10, 11), 1, 0.5))
    fused = fuse([doubtful, candidates()], [None, None])
    assert fused["probabilities"].amax(2)[0].tolist() == pytest.approx([0.3, 0, 0, 0])


def plain_fusion(several: list[Outputs], image: int, overlap: float) -> list[tuple[float, list[float]]]:
    """Score and box of each fused candidate, by a loop over candidates and groups."""
    from torchvision.ops import box_iou, nms

    pool = []
    for member, outputs in enumerate(several):
        boxes, p = outputs["boxes"][image], outputs["probabilities"][image]
        pool += [(p[i].max().item(), member, boxes[i], p[i]) for i in nms(boxes, p.amax(1), overlap).tolist()]
    groups: list[list[tuple[float, int, Tensor, Tensor]]] = []
    for one in sorted(pool, key=lambda item: -item[0]):
        best, chosen = overlap, None
        for group in groups:
            weight = sum(score for score, *_ in group)
            mean = sum(score * box for score, _, box, _ in group) / weight
            likeness = box_iou(mean[None], one[2][None]).item()  # type: ignore[index]
            if likeness > best and one[1] not in [member for _, member, *_ in group]:
                best, chosen = likeness, group
        if chosen is None:
            groups.append([one])
        else:
            chosen.append(one)
    fused = []
    for group in groups:
        weight, p = sum(score for score, *_ in group), torch.stack([p for *_, p in group]).sum(0) / len(several)
        fused.append((p.max().item(), (sum(score * box for score, _, box, _ in group) / weight).tolist()))  # type: ignore[union-attr]
    return sorted(fused, key=lambda item: -item[0])


def test_fusion_in_all_images_at_once_is_that_of_a_plain_loop():
    several = [random_candidates(6, 12, seed) for seed in (3, 4, 5)]
    fused = fuse(several, [None] * 3, overlap=0.4)
    assert fused["boxes"].shape == (6, 12, 4)
    assert fused["probabilities"].shape == (6, 12, 3)
    for image in range(6):
        expected = plain_fusion(several, image, 0.4)[:12]
        scores, boxes = fused["probabilities"][image].amax(1), fused["boxes"][image]
        count = int((scores > 0).sum())
        assert count == len(expected) > 3
        torch.testing.assert_close(scores[:count], torch.tensor([score for score, _ in expected]))
        torch.testing.assert_close(boxes[:count], torch.tensor([box for _, box in expected]))


def test_boxes_of_views_are_mapped_back_before_fusion():
    shift = torch.tensor([[1.0, 0, 5], [0, 1, -2], [0, 0, 1]])[None]
    view, image = candidates(((0, 2, 10, 12), 1, 0.8)), candidates(((5, 0, 15, 10), 1, 0.8))
    fused = fuse([view, image], [shift, None])
    torch.testing.assert_close(fused["boxes"][0, 0], torch.tensor([5.0, 0, 15, 10]))
    assert fused["probabilities"][0, 0, 1].item() == pytest.approx(0.8)


def test_each_image_has_its_own_matrix():
    boxes = torch.tensor([[[2.0, 4.0, 6.0, 8.0]]]).expand(2, 1, 4)
    scale = torch.tensor([2.0, 0.5, 1.0]).diag()
    mapped = to_image(boxes, torch.stack([torch.eye(3), scale]))
    assert mapped[:, 0].tolist() == [[2, 4, 6, 8], [4, 2, 12, 4]]


def test_a_perspective_divides_by_the_third_coordinate():
    matrix = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0.1, 0, 1]])[None]
    (mapped,) = to_image(torch.tensor([[[0.0, 0.0, 10.0, 8.0]]]), matrix)[0]
    assert mapped.tolist() == pytest.approx([0, 0, 5, 6])  # the right side is half as high: the mean of 8 and 4


def test_a_small_rotation_hardly_changes_the_size_of_a_box():
    angle = torch.tensor(0.1)
    matrix = torch.eye(3)
    matrix[:2, :2] = torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])
    (box,) = to_image(torch.tensor([[[-7.0, -13.0, 7.0, 13.0]]]), matrix[None])[0]
    assert box.tolist() == pytest.approx([-7, -13, 7, 13], rel=0.01)


def test_a_detector_decodes_and_merges_with_its_own_settings():
    several = [candidates(((0, 0, 10, 10), 1, 0.8)), candidates(((2, 0, 12, 10), 1, 0.5))]
    detector = DetectionModel(threshold=0.6, overlap=0.5)
    assert [one.labels for one in detector.decode(several[1])] == [()]
    (merged,) = detector.merge(several, [None, None])
    assert (merged.labels, merged.probability) == ((1,), pytest.approx(0.65))
    assert DetectionModel.locates
