/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The wire formats against a second table, written from the description of containerd's API and not from
 * the .proto files: a wrong number there would otherwise be read back by the same wrong number here.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/compiler.h"
#include "containerd/services/content/v1/content.pb-c.h"
#include "containerd/services/snapshots/v1/snapshots.pb-c.h"
#include "containerd/types/descriptor.pb-c.h"
#include "containerd/types/mount.pb-c.h"
#include "containerd/types/platform.pb-c.h"
#include "grpc/health/v1/health.pb-c.h"

/* As "number name type", with "*" for repeated and "map" for map<string, string>; types without package. */
struct expected_message {
	const ProtobufCMessageDescriptor *descriptor;
	const char *name;
	const char *fields;
};

#define SNAPSHOTS(lower, name_, fields_)                                                           \
	{                                                                                          \
		&containerd__services__snapshots__v1__##lower##__descriptor,                       \
			"containerd.services.snapshots.v1." name_, fields_                         \
	}
#define CONTENT(lower, name_, fields_)                                                             \
	{                                                                                          \
		&containerd__services__content__v1__##lower##__descriptor,                         \
			"containerd.services.content.v1." name_, fields_                           \
	}
#define TYPES(lower, name_, fields_)                                                               \
	{                                                                                          \
		&containerd__types__##lower##__descriptor, "containerd.types." name_, fields_      \
	}

static const struct expected_message expected_messages[] = {
	SNAPSHOTS(prepare_snapshot_request, "PrepareSnapshotRequest",
		  "1 snapshotter string, 2 key string, 3 parent string, 4 labels map"),
	SNAPSHOTS(prepare_snapshot_response, "PrepareSnapshotResponse", "1 mounts *Mount"),
	SNAPSHOTS(view_snapshot_request, "ViewSnapshotRequest",
		  "1 snapshotter string, 2 key string, 3 parent string, 4 labels map"),
	SNAPSHOTS(view_snapshot_response, "ViewSnapshotResponse", "1 mounts *Mount"),
	SNAPSHOTS(mounts_request, "MountsRequest", "1 snapshotter string, 2 key string"),
	SNAPSHOTS(mounts_response, "MountsResponse", "1 mounts *Mount"),
	SNAPSHOTS(
		commit_snapshot_request, "CommitSnapshotRequest",
		"1 snapshotter string, 2 name string, 3 key string, 4 labels map, 5 parent string"),
	SNAPSHOTS(remove_snapshot_request, "RemoveSnapshotRequest",
		  "1 snapshotter string, 2 key string"),
	SNAPSHOTS(stat_snapshot_request, "StatSnapshotRequest",
		  "1 snapshotter string, 2 key string"),
	SNAPSHOTS(stat_snapshot_response, "StatSnapshotResponse", "1 info Info"),
	SNAPSHOTS(update_snapshot_request, "UpdateSnapshotRequest",
		  "1 snapshotter string, 2 info Info, 3 update_mask FieldMask"),
	SNAPSHOTS(update_snapshot_response, "UpdateSnapshotResponse", "1 info Info"),
	SNAPSHOTS(list_snapshots_request, "ListSnapshotsRequest",
		  "1 snapshotter string, 2 filters *string"),
	SNAPSHOTS(list_snapshots_response, "ListSnapshotsResponse", "1 info *Info"),
	SNAPSHOTS(usage_request, "UsageRequest", "1 snapshotter string, 2 key string"),
	SNAPSHOTS(usage_response, "UsageResponse", "1 size int64, 2 inodes int64"),
	SNAPSHOTS(cleanup_request, "CleanupRequest", "1 snapshotter string"),
	SNAPSHOTS(info, "Info",
		  "1 name string, 2 parent string, 3 kind Kind, 4 created_at Timestamp, "
		  "5 updated_at Timestamp, 6 labels map"),

	CONTENT(info_request, "InfoRequest", "1 digest string"),
	CONTENT(info_response, "InfoResponse", "1 info Info"),
	CONTENT(update_request, "UpdateRequest", "1 info Info, 2 update_mask FieldMask"),
	CONTENT(update_response, "UpdateResponse", "1 info Info"),
	CONTENT(list_content_request, "ListContentRequest", "1 filters *string"),
	CONTENT(list_content_response, "ListContentResponse", "1 info *Info"),
	CONTENT(delete_content_request, "DeleteContentRequest", "1 digest string"),
	CONTENT(read_content_request, "ReadContentRequest",
		"1 digest string, 2 offset int64, 3 size int64"),
	CONTENT(read_content_response, "ReadContentResponse", "1 offset int64, 2 data bytes"),
	CONTENT(status_request, "StatusRequest", "1 ref string"),
	CONTENT(status_response, "StatusResponse", "1 status Status"),
	CONTENT(list_statuses_request, "ListStatusesRequest", "1 filters *string"),
	CONTENT(list_statuses_response, "ListStatusesResponse", "1 statuses *Status"),
	CONTENT(write_content_request, "WriteContentRequest",
		"1 action WriteAction, 2 ref string, 3 total int64, 4 expected string, "
		"5 offset int64, 6 data bytes, 7 labels map"),
	CONTENT(write_content_response, "WriteContentResponse",
		"1 action WriteAction, 2 started_at Timestamp, 3 updated_at Timestamp, "
		"4 offset int64, 5 total int64, 6 digest string"),
	CONTENT(abort_request, "AbortRequest", "1 ref string"),
	CONTENT(info, "Info",
		"1 digest string, 2 size int64, 3 created_at Timestamp, 4 updated_at Timestamp, "
		"5 labels map"),
	CONTENT(status, "Status",
		"1 started_at Timestamp, 2 updated_at Timestamp, 3 ref string, 4 offset int64, "
		"5 total int64, 6 expected string"),

	TYPES(mount, "Mount", "1 type string, 2 source string, 3 target string, 4 options *string"),
	TYPES(descriptor, "Descriptor",
	      "1 media_type string, 2 digest string, 3 size int64, 5 annotations map"),
	TYPES(platform, "Platform",
	      "1 os string, 2 architecture string, 3 variant string, 4 os_version string, "
	      "5 os_features *string"),

	{&grpc__health__v1__health_check_request__descriptor, "grpc.health.v1.HealthCheckRequest",
	 "1 service string"},
	{&grpc__health__v1__health_check_response__descriptor, "grpc.health.v1.HealthCheckResponse",
	 "1 status ServingStatus"},
	{&google__protobuf__timestamp__descriptor, "google.protobuf.Timestamp",
	 "1 seconds int64, 2 nanos int32"},
	{&google__protobuf__field_mask__descriptor, "google.protobuf.FieldMask", "1 paths *string"},
	{&google__protobuf__empty__descriptor, "google.protobuf.Empty", ""},
};

static int is_string_map(const ProtobufCFieldDescriptor *field)
{
	const ProtobufCMessageDescriptor *entry = field->descriptor;
	const char *suffix = "Entry";
	size_t len;

	if (field->label != PROTOBUF_C_LABEL_REPEATED || field->type != PROTOBUF_C_TYPE_MESSAGE)
		return 0;
	len = strlen(entry->short_name);
	return len > strlen(suffix) &&
	       strcmp(entry->short_name + len - strlen(suffix), suffix) == 0 &&
	       entry->n_fields == 2 && entry->fields[0].id == 1 &&
	       entry->fields[0].type == PROTOBUF_C_TYPE_STRING && entry->fields[1].id == 2 &&
	       entry->fields[1].type == PROTOBUF_C_TYPE_STRING;
}

static const char *type_name(const ProtobufCFieldDescriptor *field)
{
	switch (field->type) {
	case PROTOBUF_C_TYPE_STRING:
		return "string";
	case PROTOBUF_C_TYPE_BYTES:
		return "bytes";
	case PROTOBUF_C_TYPE_INT32:
		return "int32";
	case PROTOBUF_C_TYPE_INT64:
		return "int64";
	case PROTOBUF_C_TYPE_MESSAGE:
		return ((const ProtobufCMessageDescriptor *)field->descriptor)->short_name;
	case PROTOBUF_C_TYPE_ENUM:
		return ((const ProtobufCEnumDescriptor *)field->descriptor)->short_name;
	default:
		return "?";
	}
}

static void describe(const ProtobufCMessageDescriptor *message, char *buf, size_t size)
{
	size_t len = 0;

	buf[0] = '\0';
	for (unsigned int i = 0; i < message->n_fields; i++) {
		const ProtobufCFieldDescriptor *field = &message->fields[i];
		int is_map = is_string_map(field);

		len += (size_t)snprintf(buf + len, size - len, "%s%u %s %s%s", i ? ", " : "",
					field->id, field->name,
					field->label == PROTOBUF_C_LABEL_REPEATED && !is_map ? "*"
											     : "",
					is_map ? "map" : type_name(field));
		assert_true(len < size);
	}
}

static void messages_have_the_names_and_numbers_of_containerds(void **state)
{
	char actual[1024];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(expected_messages); i++) {
		describe(expected_messages[i].descriptor, actual, sizeof(actual));
		assert_string_equal(expected_messages[i].descriptor->name,
				    expected_messages[i].name);
		assert_string_equal(actual, expected_messages[i].fields);
	}
}

/* Proto3 readers tell "absent" from "zero" by nothing but presence of message fields. */
static void scalar_fields_have_no_presence(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(expected_messages); i++) {
		const ProtobufCMessageDescriptor *message = expected_messages[i].descriptor;

		for (unsigned int j = 0; j < message->n_fields; j++) {
			assert_int_not_equal(message->fields[j].label, PROTOBUF_C_LABEL_REQUIRED);
			if (message->fields[j].type != PROTOBUF_C_TYPE_MESSAGE)
				assert_int_not_equal(message->fields[j].label,
						     PROTOBUF_C_LABEL_OPTIONAL);
		}
	}
}

struct expected_method {
	const ProtobufCServiceDescriptor *service;
	const char *service_name;
	const char *name;
	const char *request;
	const char *response;
};

#define SNAPSHOTS_METHOD(name_, request_, response_)                                               \
	{                                                                                          \
		&containerd__services__snapshots__v1__snapshots__descriptor,                       \
			"containerd.services.snapshots.v1.Snapshots", name_, request_, response_   \
	}
#define CONTENT_METHOD(name_, request_, response_)                                                 \
	{                                                                                          \
		&containerd__services__content__v1__content__descriptor,                           \
			"containerd.services.content.v1.Content", name_, request_, response_       \
	}
#define HEALTH_METHOD(name_, request_, response_)                                                  \
	{                                                                                          \
		&grpc__health__v1__health__descriptor, "grpc.health.v1.Health", name_, request_,   \
			response_                                                                  \
	}

static const struct expected_method expected_methods[] = {
	SNAPSHOTS_METHOD("Prepare", "PrepareSnapshotRequest", "PrepareSnapshotResponse"),
	SNAPSHOTS_METHOD("View", "ViewSnapshotRequest", "ViewSnapshotResponse"),
	SNAPSHOTS_METHOD("Mounts", "MountsRequest", "MountsResponse"),
	SNAPSHOTS_METHOD("Commit", "CommitSnapshotRequest", "Empty"),
	SNAPSHOTS_METHOD("Remove", "RemoveSnapshotRequest", "Empty"),
	SNAPSHOTS_METHOD("Stat", "StatSnapshotRequest", "StatSnapshotResponse"),
	SNAPSHOTS_METHOD("Update", "UpdateSnapshotRequest", "UpdateSnapshotResponse"),
	SNAPSHOTS_METHOD("List", "ListSnapshotsRequest", "ListSnapshotsResponse"),
	SNAPSHOTS_METHOD("Usage", "UsageRequest", "UsageResponse"),
	SNAPSHOTS_METHOD("Cleanup", "CleanupRequest", "Empty"),
	CONTENT_METHOD("Info", "InfoRequest", "InfoResponse"),
	CONTENT_METHOD("Update", "UpdateRequest", "UpdateResponse"),
	CONTENT_METHOD("List", "ListContentRequest", "ListContentResponse"),
	CONTENT_METHOD("Delete", "DeleteContentRequest", "Empty"),
	CONTENT_METHOD("Read", "ReadContentRequest", "ReadContentResponse"),
	CONTENT_METHOD("Status", "StatusRequest", "StatusResponse"),
	CONTENT_METHOD("ListStatuses", "ListStatusesRequest", "ListStatusesResponse"),
	CONTENT_METHOD("Write", "WriteContentRequest", "WriteContentResponse"),
	CONTENT_METHOD("Abort", "AbortRequest", "Empty"),
	HEALTH_METHOD("Check", "HealthCheckRequest", "HealthCheckResponse"),
	HEALTH_METHOD("Watch", "HealthCheckRequest", "HealthCheckResponse"),
};

static void services_have_the_methods_of_containerds(void **state)
{
	size_t expected = 0;

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(expected_methods); i++) {
		const struct expected_method *want = &expected_methods[i];
		const ProtobufCMethodDescriptor *method =
			protobuf_c_service_descriptor_get_method_by_name(want->service, want->name);

		assert_string_equal(want->service->name, want->service_name);
		assert_non_null(method);
		assert_string_equal(method->input->short_name, want->request);
		assert_string_equal(method->output->short_name, want->response);
	}
	expected += containerd__services__snapshots__v1__snapshots__descriptor.n_methods;
	expected += containerd__services__content__v1__content__descriptor.n_methods;
	expected += grpc__health__v1__health__descriptor.n_methods;
	assert_int_equal(expected, ARRAY_LEN(expected_methods));
}

struct expected_value {
	const ProtobufCEnumDescriptor *descriptor;
	const char *name;
	int value;
};

static const struct expected_value expected_values[] = {
	{&containerd__services__snapshots__v1__kind__descriptor, "UNKNOWN", 0},
	{&containerd__services__snapshots__v1__kind__descriptor, "VIEW", 1},
	{&containerd__services__snapshots__v1__kind__descriptor, "ACTIVE", 2},
	{&containerd__services__snapshots__v1__kind__descriptor, "COMMITTED", 3},
	{&containerd__services__content__v1__write_action__descriptor, "STAT", 0},
	{&containerd__services__content__v1__write_action__descriptor, "WRITE", 1},
	{&containerd__services__content__v1__write_action__descriptor, "COMMIT", 2},
	{&grpc__health__v1__health_check_response__serving_status__descriptor, "UNKNOWN", 0},
	{&grpc__health__v1__health_check_response__serving_status__descriptor, "SERVING", 1},
	{&grpc__health__v1__health_check_response__serving_status__descriptor, "NOT_SERVING", 2},
	{&grpc__health__v1__health_check_response__serving_status__descriptor, "SERVICE_UNKNOWN",
	 3},
};

static void enums_have_the_values_of_containerds(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(expected_values); i++) {
		const ProtobufCEnumValue *value =
			protobuf_c_enum_descriptor_get_value_by_name(expected_values[i].descriptor,
								     expected_values[i].name);

		assert_non_null(value);
		assert_int_equal(value->value, expected_values[i].value);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(messages_have_the_names_and_numbers_of_containerds),
		cmocka_unit_test(scalar_fields_have_no_presence),
		cmocka_unit_test(services_have_the_methods_of_containerds),
		cmocka_unit_test(enums_have_the_values_of_containerds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
