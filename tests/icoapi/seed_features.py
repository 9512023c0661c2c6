"""What ICOapi could, row by row of the seeds' feature table, and the tests by which each is verified here.

`python -m tests.icoapi.seed_features` writes the table of docs/icoapi.md.
"""

import ast
import functools
from dataclasses import dataclass
from pathlib import Path

_TESTS = Path(__file__).parents[1]
PAGE = _TESTS.parent / "docs" / "icoapi.md"
_BEGIN, _END = "<!-- seed features: begin -->\n", "<!-- seed features: end -->\n"


@dataclass(frozen=True)
class Row:
    """A feature; `tests` as folder/file:name, without what all such names begin with."""

    number: int
    feature: str
    tests: tuple[str, ...]

    def __str__(self) -> str:
        said = "; ".join(
            f"{each.partition(':')[2].replace('_', ' ')} (`{file_of(each)}`)" for each in self.tests
        )
        return f"| {self.number} | {self.feature} | {said} |"


def file_of(test: str) -> str:
    folder, _, file = test.partition(":")[0].rpartition("/")
    return f"{folder}/test_{file}.py"


ROWS = [
    Row(
        1,
        "open CAN, retry when absent",
        (
            "icoapi/defects:6_a_bus_that_comes_late_is_used_without_a_restart",
            "icotronic/session:it_works_over_socketcand_and_returns_by_itself_when_the_bus_does",
        ),
    ),
    Row(2, "reset CAN connection", ("icoapi/contract_nodes:reset_can",)),
    Row(3, "STU info", ("icoapi/contract_nodes:stu",)),
    Row(4, "STU reset only when idle", ("icoapi/nodes:the_stu_is_reset_only_when_nothing_is_connected",)),
    Row(
        5,
        "is an STH connected",
        ("icoapi/contract_nodes:stu", "icoapi/nodes:a_silent_node_is_a_503_with_a_sentence_and_then_lost"),
    ),
    Row(
        6,
        "scan STHs, stable order",
        (
            "icoapi/nodes:nodes_are_found_in_the_order_of_their_numbers",
            "icoapi/defects:7_parallel_requests_all_answer",
        ),
    ),
    Row(
        7,
        "connect by MAC, name, number",
        (
            "icoapi/nodes:a_node_is_connected_by_mac_name_or_number",
            "icoapi/contract_nodes:connect_and_disconnect",
        ),
    ),
    Row(
        8,
        "disconnect, safe start and stop",
        (
            "icoapi/defects:11_a_link_left_over_from_a_crash_is_no_obstacle",
            "icotronic/session:a_link_left_over_that_nobody_wants_is_ended",
        ),
    ),
    Row(9, "rename, 8 byte limit", ("icoapi/contract_nodes:rename",)),
    Row(
        10,
        "read and write the ADC configuration",
        (
            "icoapi/contract_nodes:adc_and_voltage",
            "icotronic/requests:every_adc_configuration_is_taken_as_it_was_given",
        ),
    ),
    Row(11, "supply voltage", ("icoapi/contract_nodes:adc_and_voltage",)),
    Row(
        12,
        "sensor map, unsupported firmware",
        ("icoapi/nodes:old_firmware_knows_no_sensors", "icoapi/contract_nodes:instructions_that_cannot_be"),
    ),
    Row(
        13,
        "start a measurement, any channels",
        ("icoapi/contract_nodes:stream_of_all_channel_masks", "icoapi/contract_nodes:start_stop_and_status"),
    ),
    Row(
        14,
        "stop; second start and all-off refused",
        (
            "icoapi/contract_nodes:start_stop_and_status",
            "icoapi/defects:3_all_channels_off_leaves_nothing_running",
        ),
    ),
    Row(
        15,
        "conversion",
        (
            "icoapi/seed_features:the_middle_of_the_scale_is_nearly_0_g",
            "icoapi/contract_nodes:stream_of_all_channel_masks",
        ),
    ),
    Row(
        16, "sample rate from ADC settings", ("icoapi/seed_features:the_sample_rate_is_that_of_the_formula",)
    ),
    Row(
        17,
        "live stream, several clients",
        (
            "icoapi/measurements:every_client_gets_every_frame_and_one_who_aborts_is_alone",
            "icoapi/defects:4_a_client_that_dies_ends_its_own_stream_alone",
        ),
    ),
    Row(18, "data loss", ("measurements/simulated:the_loss_that_is_told_is_the_loss_that_was",)),
    Row(
        19,
        "IFT value",
        (
            "measurements/ift:it_is_the_formula_to_1e_12",
            "icoapi/contract_nodes:stream_with_ift_and_a_lost_node",
        ),
    ),
    Row(
        20,
        "a lost node is told within 6 s",
        (
            "icotronic/streams:a_node_lost_while_it_streams_is_noticed_within_6_s",
            "icoapi/contract_nodes:stream_with_ift_and_a_lost_node",
        ),
    ),
    Row(
        21,
        "HDF5 file",
        (
            "measurements/layout:h5py_finds_the_documented_layout",
            "measurements/layout:the_icotronic_library_and_pytables_read_it",
        ),
    ),
    Row(
        22,
        "pre-metadata",
        ("measurements/layout:metadata_comes_before_the_file_or_long_after", "icoapi/contract_files:analyze"),
    ),
    Row(
        23,
        "post-metadata",
        (
            "icoapi/contract_nodes:state_socket",
            "icoapi/measurements:a_measurement_with_all_that_can_be_asked_for",
        ),
    ),
    Row(
        24,
        "disconnect after a measurement",
        ("icoapi/measurements:a_measurement_with_all_that_can_be_asked_for",),
    ),
    Row(
        25,
        "file list, disk, cloud status",
        ("icoapi/contract_files:list_download_and_delete", "icoapi/contract_cloud:the_cloud_operations"),
    ),
    Row(
        26,
        "download, delete, names",
        (
            "icoapi/contract_files:list_download_and_delete",
            "icoapi/contract_files:names_that_are_no_files_of_ours",
        ),
    ),
    Row(
        27,
        "analysis, foreign files",
        (
            "icoapi/contract_files:analyze",
            "icoapi/contract_files:a_file_of_others_is_taken_in_once_more_under_another_name",
        ),
    ),
    Row(28, "metadata later", ("icoapi/contract_files:metadata_later_also_where_there_was_none",)),
    Row(29, "embedded files", ("icoapi/contract_files:embedded_files",)),
    Row(
        30,
        "sensors.yaml",
        (
            "icoapi/contract_files:sensors_uploaded_and_restored",
            "api/documents:each_field_of_a_sensor_is_needed",
        ),
    ),
    Row(
        31,
        "metadata.yaml",
        (
            "api/documents:each_of_the_ten_datatypes_is_taken",
            "icoapi/contract_files:documents_that_will_not_do",
        ),
    ),
    Row(32, "dataspace.yaml", ("icoapi/contract_files:the_password_of_a_dataspace_is_never_shown",)),
    Row(
        33,
        "backups, restore",
        (
            "icoapi/contract_files:sensors_uploaded_and_restored",
            "api/documents:a_restored_version_is_the_same_byte_for_byte",
        ),
    ),
    Row(
        34,
        "dataspace login, refresh",
        (
            "forward/dataspace_target:an_expired_token_is_refreshed_once_however_many_ask",
            "forward/dataspace_target:refused_refresh_tokens_lead_to_a_new_log_in",
        ),
    ),
    Row(
        35,
        "upload",
        (
            "icoapi/contract_cloud:the_cloud_operations",
            "api/cloud:a_measurement_arrives_by_itself_and_again_when_its_metadata_comes",
        ),
    ),
    Row(
        36,
        "update, statuses",
        (
            "icoapi/contract_cloud:the_cloud_operations",
            "forward/files:what_others_do_at_the_target_is_told_and_left_to_a_person",
        ),
    ),
    Row(37, "list of remote objects", ("forward/dataspace_target:all_pages_are_read",)),
    Row(38, "health, manage URL, re-authenticate", ("icoapi/contract_cloud:the_cloud_operations",)),
    Row(
        39,
        "exactly one remote object",
        (
            "forward/files:whatever_fails_there_is_one_object_with_the_right_bytes",
            "forward/file_kill:kills_at_every_step_leave_one_object_with_the_right_bytes",
        ),
    ),
    Row(
        40,
        "dialect of 0.1.2",
        ("forward/files:a_file_that_is_written_arrives_and_what_is_changed_takes_its_place",),
    ),
    Row(
        41,
        "state, REST and WebSocket",
        (
            "icoapi/contract_nodes:state",
            "icoapi/contract_nodes:state_socket",
            "icoapi/defects:5_malformed_text_harms_its_own_socket_alone",
        ),
    ),
    Row(42, "logs", ("icoapi/contract_files:logs", "icoapi/contract_files:the_live_log_speaks")),
    Row(
        43,
        "environment, CORS, log options",
        (
            "icoapi/contract_files:the_environment",
            "icoapi/contract_nodes:pages_of_other_origins_are_shut_out",
        ),
    ),
    Row(44, "OpenAPI (of `/v1`)", ("api/openapi:schemathesis_finds_nothing",)),
]
"""Row 45, service and image, is `tests/machine`."""


def missing() -> list[str]:
    """Return the tests that are named here and are not there."""
    return [test for row in ROWS for test in row.tests if test.partition(":")[2] not in _names(file_of(test))]


@functools.cache
def _names(file: str) -> frozenset[str]:
    tree = ast.parse((_TESTS / file).read_text(encoding="utf-8"))
    functions = (node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(node.name.removeprefix("test_") for node in functions)


def in_page(page: str) -> str:
    """Return the page with the table as it is to be."""
    before, _, rest = page.partition(_BEGIN)
    after = rest.partition(_END)[2]
    table = "\n".join(["| row | feature of ICOapi | verified by |", "|---|---|---|", *map(str, ROWS)])
    return f"{before}{_BEGIN}{table}\n{_END}{after}"


if __name__ == "__main__":
    PAGE.write_text(in_page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
