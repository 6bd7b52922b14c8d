"""Foreign maps, scenarios, mazes and states: round trips, and one sentence for each fault."""

from __future__ import annotations

import csv
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ganglion.core.errors import DataError, OutputError
from ganglion.tasks.gridnav import checks, formats, maps, packing, paths, published, records
from ganglion.tasks.gridnav import references as r

from .drawn import drawn

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def arrays() -> Arrays:
    cases = maps.draw_cases("density", 30, 8, 8, np.random.default_rng(0))
    return records.make(cases.free, cases.goal, cases.start, cases.distance)


@pytest.mark.parametrize("format", ["pt", "scen"])
def test_what_is_written_comes_back(format: str, arrays: Arrays, tmp_path: Path) -> None:
    path = tmp_path / f"data.{format}"
    formats.FORMATS[format](arrays, path)
    back = formats.IMPORTERS[format](path)
    assert set(back) == set(arrays)
    for name in arrays:
        assert (back[name] == arrays[name]).all()
        assert back[name].dtype == arrays[name].dtype
    checks.check(back)


# ---------------------------------------------------------------- the original's states


def test_a_file_of_the_original_reads_as_its_own_tensors_say(tmp_path: Path) -> None:
    # Two free rows of a 2 x 2 map, the robot at (1, 1), the goal at (0, 0), the label UP.
    path = tmp_path / "train.pt"
    state = torch.tensor([[1, 1, 1, 1, 4, 4, 3, 3]])
    torch.save({"tokens": state, "actions": torch.tensor([0])}, path)
    found = records.read(formats.read_tokens(path))
    assert found.free.all()
    assert (found.start.tolist(), found.goal.tolist()) == ([[1, 1]], [[0, 0]])
    assert found.label.tolist() == [0]
    assert found.moves[0].tolist() == [[16, 4], [1, 5]]


def test_the_original_can_read_what_is_written(arrays: Arrays, tmp_path: Path) -> None:
    held = {name: array.copy() for name, array in arrays.items()}
    for array in held.values():
        array.setflags(write=False)  # as datasets are opened
    formats.write_tokens(held, tmp_path / "train.pt")
    found = torch.load(tmp_path / "train.pt", weights_only=True)
    assert found["tokens"].shape == (30, 68)
    assert {str(t.dtype) for t in found.values()} == {"torch.int64"}


@pytest.mark.parametrize(
    ("tokens", "actions", "said"),
    [
        (torch.ones(3, 67).long(), torch.zeros(3).long(), "68 of them for maps of 8 x 8"),
        (torch.ones(3, 68), torch.zeros(3).long(), "whole numbers"),
        (torch.ones(1, 68).long(), torch.zeros(1).long(), r"tokens\[0, 64\] is 1; a row or column"),
        (None, torch.zeros(29).long(), r"actions are int64\(29,\); whole numbers \(30,\)"),
        (None, torch.zeros(30), r"actions are float32"),
        (None, torch.full((30,), 5), r"actions\[0\] is 5; 0 to 4 are moves"),
        (None, torch.full((30,), -1), r"actions\[0\] is -1; 0 to 4 are moves"),
    ],
)
def test_states_that_are_none_are_named(
    tokens: torch.Tensor | None, actions: torch.Tensor, said: str, arrays: Arrays, tmp_path: Path
) -> None:
    path = tmp_path / "bad.pt"
    if tokens is None:
        formats.write_tokens(arrays, path)
        tokens = torch.load(path, weights_only=True)["tokens"]
    torch.save({"tokens": tokens, "actions": actions}, path)
    with pytest.raises(DataError, match=said) as caught:
        formats.read_tokens(path)
    assert str(path) in str(caught.value)


def test_a_pickle_is_no_file_of_states(tmp_path: Path) -> None:
    path = tmp_path / "bad.pt"
    path.write_bytes(pickle.dumps({"tokens": [[1]], "actions": [0]}))
    with pytest.raises(DataError, match="it is no intact zip file"):
        formats.read_tokens(path)


def test_maps_that_are_not_square_have_no_tokens(tmp_path: Path) -> None:
    arrays = records.make(drawn("...", "..."), np.array([[0, 0]]), np.array([[1, 1]]))
    with pytest.raises(DataError, match="Tokens are for square maps"):
        formats.write_tokens(arrays, tmp_path / "a.pt")


# ---------------------------------------------------------------- Moving AI

GOOD = "type octile\nheight 2\nwidth 3\nmap\n.@G\nSTW\n"


def written(path: Path, text: str) -> Path:
    path.write_bytes(text.encode("latin-1"))
    return path


def test_a_map_on_paper(tmp_path: Path) -> None:
    free = formats.moving_ai.read_map(written(tmp_path / "a.map", GOOD))
    assert free.tolist() == [[True, False, True], [True, False, False]]
    dos = written(tmp_path / "b.map", GOOD.replace("\n", "\r\n"))
    assert (formats.moving_ai.read_map(dos) == free).all()


def test_a_map_gives_a_hundred_cases_that_its_contents_decide(tmp_path: Path) -> None:
    text = "type octile\nheight 3\nwidth 5\nmap\n.....\n.@@@.\n..@@@\n"
    first, again = (
        formats.IMPORTERS["map"](written(tmp_path / n, text)) for n in ("a.map", "b.map")
    )
    checks.check(first)
    assert len(first["free"]) == 100
    assert all((first[name] == again[name]).all() for name in first)
    assert len({tuple(g) for g in first["goal"].tolist()}) > 5


def test_a_cell_on_its_own_is_no_goal(tmp_path: Path) -> None:
    alone = written(tmp_path / "a.map", "type octile\nheight 1\nwidth 4\nmap\n.@..\n")
    assert formats.IMPORTERS["map"](alone)["goal"][:, 1].min() == 2
    none = written(tmp_path / "b.map", "type octile\nheight 1\nwidth 3\nmap\n.@.\n")
    with pytest.raises(DataError, match="has no two free cells side by side"):
        formats.IMPORTERS["map"](none)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"a.map ends after 0 lines"),
        ("type octile\nheight 2\n", "ends after 2 lines"),
        (GOOD.replace("octile", "hex"), r"line 1: 'type hex' was found; 'type octile' was expe"),
        (GOOD.replace("height 2", "height x"), r"line 2: 'height x' was found; 'height N' with N"),
        (GOOD.replace("height 2", "height 999999"), "'height N' with N from 1 to 16384"),
        (GOOD.replace("width 3", "width 0"), r"line 3: 'width 0' was found"),
        (GOOD.replace("width 3", "width 4"), r"line 5 has 3 cells; the header says width 4"),
        (GOOD.replace("height 2", "height 3"), "has 2 rows; its header says 3"),
        (GOOD + "...\n", "has 3 rows; its header says 2"),
        (GOOD.replace("G", "#"), r"line 5, column 3: '#' is no cell; known are \. G S @ O T W"),
        (GOOD.replace("G", "\xe9"), "is no text file: byte 35"),
        (GOOD.replace("map", "x" * 200), r"line 4: 'xxx.*\.\.\.' was found; 'map' was expected"),
        ("type octile\nheight 16000\nwidth 16000\nmap\n" + "." * 40, "has 1 rows; its header"),
    ],
)
def test_a_map_that_is_none_is_named(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        formats.IMPORTERS["map"](written(tmp_path / "a.map", text))


def test_several_maps_do_not_fit_one_map_file(arrays: Arrays, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"30 maps, and a .map file holds one; --format scen"):
        formats.FORMATS["map"](arrays, tmp_path / "a.map")
    one = {name: array[:1] for name, array in arrays.items()}
    formats.FORMATS["map"](one, tmp_path / "a.map")
    free = formats.moving_ai.read_map(tmp_path / "a.map")
    assert (free == records.read(one).free[0]).all()


def test_a_scenario_says_columns_before_rows_and_octile_lengths(tmp_path: Path) -> None:
    # 3 x 3 free cells from (0, 0) to (2, 1): one diagonal step and one down, 1 + sqrt(2)
    free = drawn("...", "...", "...")
    arrays = records.make(free, np.array([[2, 1]]), np.array([[0, 0]]))
    formats.FORMATS["scen"](arrays, tmp_path / "a.scen")
    line = (tmp_path / "a.scen").read_text().splitlines()[1].split("\t")
    assert line == ["0", "a-0000.map", "3", "3", "0", "0", "1", "2", "2.41421356"]
    # a wall beside the diagonal forbids it: 3 straight steps
    arrays = records.make(drawn("...", "#..", "..."), np.array([[1, 1]]), np.array([[0, 0]]))
    formats.FORMATS["scen"](arrays, tmp_path / "b.scen")
    assert (tmp_path / "b.scen").read_text().splitlines()[1].endswith("\t2.00000000")


SCENE = "version 1\n0\ta.map\t3\t2\t0\t0\t0\t1\t1.0\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "ends after 0 lines"),
        ("version 2\n", r"line 1: 'version 2' was found; 'version 1' was expected"),
        ("version 1.0\n", "holds no scenario"),
        (SCENE.replace("\t1.0", ""), "line 2 has 8 fields; nine were expected"),
        (SCENE.replace("\t0\t1\t1.0", "\t0\tx\t1.0"), "line 2: sizes and places are whole numbers"),
        (SCENE.replace("\t1.0", "\tbanana"), "line 2: the length 'banana' is no number"),
        (SCENE.replace("3\t2", "4\t2"), r"says 2 x 4 cells, but a.map has 2 x 3; maps are not sca"),
        (SCENE.replace("0\t1\t1.0", "1\t1\t1.0"), "goal at row 1, column 1 is not free"),
        (SCENE.replace("0\t1\t1.0", "0\t5\t1.0"), "goal at row 5, column 0 is not free"),
        (SCENE.replace("0\t1\t1.0", "2\t0\t1.0"), "no way leads from the start"),
        (SCENE.replace("a.map", "none.map"), "there is no map 'none.map' beside the file"),
        (SCENE.replace("a.map", "../a.map"), r"the map '\.\./a.map' lies outside its folder"),
        (SCENE.replace("a.map", "/etc/passwd"), "the map '/etc/passwd' lies outside its folder"),
        (SCENE + SCENE.splitlines()[1].replace("a.map\t3\t2", "c.map\t1\t2"),
         "line 3: a map of 2 x 1 cells after one of 2 x 3; one dataset has one size"),
    ],
)  # fmt: skip
def test_a_scenario_that_is_none_is_named(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    written(tmp_path / "a.map", GOOD)
    written(tmp_path / "in" / "a.map", GOOD)
    written(tmp_path / "in" / "c.map", "type octile\nheight 2\nwidth 1\nmap\n.\n.\n")
    with pytest.raises(DataError, match=said):
        formats.IMPORTERS["scen"](written(tmp_path / "in" / "a.scen", text))


def test_a_scenario_finds_its_map_by_name_beside_it(tmp_path: Path) -> None:
    written(tmp_path / "a.map", GOOD)
    path = written(tmp_path / "a.scen", SCENE.replace("a.map", "maps/dao/a.map"))
    found = records.read(formats.IMPORTERS["scen"](path))
    assert (found.start.tolist(), found.goal.tolist()) == ([[0, 0]], [[1, 0]])


def test_what_would_not_fit_into_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats.moving_ai, "_MOST_CELLS", 11)
    written(tmp_path / "a.map", GOOD)
    path = written(tmp_path / "a.scen", SCENE + SCENE.splitlines()[1])
    with pytest.raises(DataError, match="has over 1 cases on 2 x 3 cells"):
        formats.IMPORTERS["scen"](path)
    monkeypatch.setattr(formats.moving_ai, "_MOST_BYTES", 10)
    with pytest.raises(DataError, match="is larger than 10 bytes"):
        formats.IMPORTERS["map"](tmp_path / "a.map")


# ---------------------------------------------------------------- published mazes


def puzzles(path: Path, rows: list[tuple[str, str]], head: str = "source,question,answer") -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(head.split(","))
        writer.writerows([("x", *row) for row in rows])
    return path


QUESTION, ANSWER = "S# " + "  #" + "# G", "S# " + "oo#" + "#oG"


def test_a_maze_on_paper(tmp_path: Path) -> None:
    found = formats.IMPORTERS["csv"](puzzles(tmp_path / "a.csv", [(QUESTION, ANSWER)]))
    checks.check(found)
    records_found = records.read(found)
    assert records_found.start.tolist() == [[0, 0]]
    assert records_found.goal.tolist() == [[2, 2]]
    answer = packing.unpack(found["answer"], 3, 3)
    assert answer[0].astype(int).tolist() == [[1, 0, 0], [1, 1, 0], [0, 1, 1]]


def test_rows_with_line_breaks_are_the_same_maze(tmp_path: Path) -> None:
    def broken(text: str) -> str:
        return "\n".join(text[i : i + 3] for i in range(0, 9, 3))

    plain = formats.IMPORTERS["csv"](puzzles(tmp_path / "a.csv", [(QUESTION, ANSWER)]))
    other = formats.IMPORTERS["csv"](
        puzzles(tmp_path / "b.csv", [(broken(QUESTION), broken(ANSWER))])
    )
    assert all((plain[name] == other[name]).all() for name in plain)


def test_the_published_rule_asks_for_the_way_of_the_file(tmp_path: Path) -> None:
    # Two shortest ways around the middle wall; the file shows the one along the top.
    question, answer = "S  " + " # " + "  G", "Soo" + " #o" + "  G"
    found = formats.IMPORTERS["csv"](puzzles(tmp_path / "a.csv", [(question, answer)] * 2))
    way = packing.unpack(found["answer"], 3, 3)
    goal, start = records.read(found).goal, records.read(found).start
    # RIGHT RIGHT DOWN DOWN as in the file; DOWN DOWN RIGHT RIGHT in the second row
    moves = np.array([[[3, 3, 1], [5, 5, 1], [3, 3, 4]], [[1, 2, 1], [1, 5, 1], [3, 3, 4]]])
    walked = paths.walk(moves, start, goal, 9)
    assert published.right(*walked, way).tolist() == [True, False]


def test_the_oracle_is_right_where_the_way_is_the_only_one(tmp_path: Path) -> None:
    cases = maps.draw_hard(4, np.random.default_rng(0), 20, 20, variants=("perfect",), over=60)
    moves = np.asarray(r.Oracle().act(r.inputs(cases.free, cases.goal))["moves"])
    passed, steps = paths.walk(moves, cases.start, cases.goal, 400)
    rows = []
    for i, free in enumerate(cases.free):
        cells = np.where(free, " ", "#")
        cells[tuple(cases.start[i])], cells[tuple(cases.goal[i])] = "S", "G"
        answer = cells.copy()
        for cell in passed[i, 1 : steps[i]]:
            answer[tuple(cell)] = "o"
        rows.append(("".join(cells.ravel()), "".join(answer.ravel())))
    found = formats.IMPORTERS["csv"](puzzles(tmp_path / "a.csv", rows))
    checks.check(found)
    assert published.right(passed, steps, packing.unpack(found["answer"], 20, 20)).all()
    greedy = np.asarray(r.Greedy().act(r.inputs(cases.free, cases.goal))["moves"])
    walked = paths.walk(greedy, cases.start, cases.goal, 400)
    assert not published.right(*walked, packing.unpack(found["answer"], 20, 20)).any()


def swap(text: str, at: int, cell: str) -> str:
    return text[:at] + cell + text[at + 1 :]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda q, a: (swap(q, 4, "x"), a), r"row 2: its question has 'x' at \(1, 1\); known are"),
        (lambda q, a: (swap(q, 3, "o"), a), r"row 2: its question has 'o' at \(1, 0\)"),
        (lambda q, a: (swap(q, 3, "S"), a), "row 2: its question has 2 'S'; one was expected"),
        (lambda q, a: (swap(q, 8, " "), a), "row 2: its question has 0 'G'; one was expected"),
        (lambda q, a: (q + " ", a), "row 2: its question has 10 characters; 3 x 3 were expected"),
        (lambda q, _: (q, ""), "row 2: its answer has 0 characters"),
        (lambda q, a: (q, swap(a, 1, "o")), r"row 2: its answer has 'o' at \(0, 1\), its question"),
        (lambda q, a: (q, swap(a, 4, " ")), "row 2: the way of its answer does not lead from S"),
        (lambda q, a: (swap(q, 3, "#"), swap(a, 3, "#")), "row 2: the way of its answer does not"),
    ],
)
def test_a_maze_that_is_none_is_named(
    change: Callable[[str, str], tuple[str, str]], said: str, tmp_path: Path
) -> None:
    path = puzzles(tmp_path / "a.csv", [(QUESTION, ANSWER), change(QUESTION, ANSWER)])
    with pytest.raises(DataError, match=said):
        formats.IMPORTERS["csv"](path)


def test_files_that_are_no_mazes_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    puzzles(path, [(QUESTION, ANSWER)], head="source,quest,answer")
    with pytest.raises(DataError, match="has the columns source, quest, answer; question and ans"):
        formats.IMPORTERS["csv"](path)
    with pytest.raises(DataError, match="holds no maze"):
        formats.IMPORTERS["csv"](puzzles(path, []))
    with pytest.raises(DataError, match="a maze of 0 x 0 cells; 2 to 128 fit"):
        formats.IMPORTERS["csv"](puzzles(path, [("", "")]))
    with pytest.raises(DataError, match="a maze of 200 x 200 cells; 2 to 128 fit"):
        formats.IMPORTERS["csv"](puzzles(path, [(" " * 40_000, "")]))
    with pytest.raises(DataError, match="is no text file: byte 0"):
        formats.IMPORTERS["csv"](written(path, "\xff\x00"))
    with pytest.raises(DataError, match="is no CSV file"):
        formats.IMPORTERS["csv"](written(path, 'question,answer\n"a"b,c\n'))
    with pytest.raises(DataError, match="is no CSV file: field larger than field limit"):
        formats.IMPORTERS["csv"](written(path, f"question,answer\n{'a' * 200_000},b\n"))
