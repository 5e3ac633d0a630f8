// Answers with a greeting and the path that was asked for, and writes that path to the app's log.
#include "app.h"
#include <stdbool.h>
#include <string.h>

// One call of the host takes this much.
#define WRITE_LIMIT 4096

// Writes all of a text, and says whether somebody still reads it.
static bool write_all(wasi_io_streams_own_output_stream_t stream, const char *text, size_t length) {
  while (length > 0) {
    size_t count = length < WRITE_LIMIT ? length : WRITE_LIMIT;
    app_list_u8_t chunk = {(uint8_t *)text, count};
    wasi_io_streams_stream_error_t error;
    if (!wasi_io_streams_method_output_stream_blocking_write_and_flush(
            wasi_io_streams_borrow_output_stream(stream), &chunk, &error)) {
      wasi_io_streams_stream_error_free(&error);
      return false;
    }
    text += count;
    length -= count;
  }
  return true;
}

static void log_line(const char *text, size_t length) {
  wasi_io_streams_own_output_stream_t out = wasi_cli_stdout_get_stdout();
  (void)(write_all(out, text, length) && write_all(out, "\n", 1));
  wasi_io_streams_output_stream_drop_own(out);
}

static void send(wasi_http_types_own_response_outparam_t out, app_string_t path) {
  wasi_http_types_own_fields_t fields = wasi_http_types_constructor_fields();
  wasi_http_types_own_outgoing_response_t response = wasi_http_types_constructor_outgoing_response(fields);
  wasi_http_types_own_outgoing_body_t body;
  // Both calls give their handle the first time they are asked, which is now.
  wasi_http_types_method_outgoing_response_body(wasi_http_types_borrow_outgoing_response(response), &body);
  wasi_http_types_result_own_outgoing_response_error_code_t result = {.is_err = false, .val.ok = response};
  wasi_http_types_static_response_outparam_set(out, &result);

  wasi_http_types_own_output_stream_t stream;
  wasi_http_types_method_outgoing_body_write(wasi_http_types_borrow_outgoing_body(body), &stream);
  static const char greeting[] = "Hello from C in a microVM!\npath: ";
  (void)(write_all(stream, greeting, strlen(greeting)) && write_all(stream, (const char *)path.ptr, path.len) &&
         write_all(stream, "\n", 1));
  wasi_io_streams_output_stream_drop_own(stream);
  wasi_http_types_error_code_t error;
  if (!wasi_http_types_static_outgoing_body_finish(body, NULL, &error)) wasi_http_types_error_code_free(&error);
}

void exports_wasi_http_incoming_handler_handle(exports_wasi_http_incoming_handler_own_incoming_request_t request,
                                               exports_wasi_http_incoming_handler_own_response_outparam_t out) {
  app_string_t path;
  if (!wasi_http_types_method_incoming_request_path_with_query(wasi_http_types_borrow_incoming_request(request), &path))
    app_string_dup(&path, "/");
  wasi_http_types_incoming_request_drop_own(request);
  log_line((const char *)path.ptr, path.len);
  send(out, path);
  app_string_free(&path);
}
