import numpy as np
import pytest

from talkgs_cli.rendering.mesh import interpolate, rasterize_mesh

# Counter-clockwise on screen where y points down, so it faces the camera.
TRIANGLE = np.array([[0.0, 0.0, 2.0], [0.0, 4.0, 2.0], [4.0, 0.0, 2.0]])
FACE = np.array([[0, 1, 2]])


def test_a_pixel_belongs_to_the_triangle_over_its_centre():
    triangle, weights = rasterize_mesh(TRIANGLE, FACE, (5, 5))
    rows, columns = np.mgrid[:5, :5] + 0.5
    np.testing.assert_array_equal(triangle >= 0, rows + columns <= 4)
    # At the centre of the first pixel: x = y = 0.5 = 4 * weight.
    np.testing.assert_allclose(weights[0, 0], [0.75, 0.125, 0.125], atol=1e-6)


def test_the_nearest_triangle_wins_whatever_the_order():
    points = np.concatenate([TRIANGLE, TRIANGLE + np.array([0, 0, 1])])
    for faces in ([[0, 1, 2], [3, 4, 5]], [[3, 4, 5], [0, 1, 2]]):
        triangle, _ = rasterize_mesh(points, np.array(faces), (4, 4))
        assert faces[triangle[0, 0]] == [0, 1, 2]


def test_backfaces_can_be_left_out():
    turned = FACE[:, ::-1]
    assert (rasterize_mesh(TRIANGLE, turned, (4, 4))[0] >= 0).any()
    assert (rasterize_mesh(TRIANGLE, turned, (4, 4), backfaces=False)[0] < 0).all()
    assert (rasterize_mesh(TRIANGLE, FACE, (4, 4), backfaces=False)[0] >= 0).any()


def test_triangles_behind_the_camera_and_off_the_image_are_not_drawn():
    for points in (TRIANGLE * [1, 1, -1], TRIANGLE + np.array([100, 0, 0]), TRIANGLE * np.nan):
        assert (rasterize_mesh(points, FACE, (4, 4))[0] < 0).all()


def test_weights_are_perspective_correct():
    generator = np.random.default_rng(0)
    camera = generator.uniform(-1, 1, (3, 3)) + np.array([0, 0, 3])  # points before projection
    pixels = np.concatenate([camera[:, :2] / camera[:, 2:] * 60 + 32, camera[:, 2:]], 1)
    triangle, weights = rasterize_mesh(pixels, FACE, (64, 64))
    seen = interpolate(camera, FACE, triangle, weights)
    rows, columns = np.nonzero(triangle >= 0)
    assert len(rows) > 20
    point = seen[rows, columns]
    back = point[:, :2] / point[:, 2:] * 60 + 32
    np.testing.assert_allclose(back, np.stack([columns, rows], 1) + 0.5, atol=1e-3)


@pytest.mark.parametrize("shift", [0.0, 0.37])
def test_two_triangles_sharing_an_edge_leave_no_hole(shift):
    square = np.array([[0, 0, 1], [0, 8, 1], [8, 8, 1], [8, 0, 1]]) + np.array([shift, shift, 0])
    triangle, _ = rasterize_mesh(square, np.array([[0, 1, 2], [0, 2, 3]]), (8, 8))
    assert (triangle[1:, 1:] >= 0).all()
    assert set(np.unique(triangle[1:, 1:])) == {0, 1}
