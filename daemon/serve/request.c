#include "serve/request.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "serve/body.h"
#include "serve/negotiate.h"

enum { MAX_SECONDS = 86400 };
#define TARGETS_PREFIX "/v1/targets/"
#define TABLE_SUFFIX   "/table"
#define ROUTES                                                                                              \
	"GET /debug/pprof/, GET /debug/pprof/profile?pid=N[&seconds=S][&symbols=0], GET|POST /v1/targets, " \
	"GET|DELETE|PATCH "                                                                                 \
	"/v1/targets/PID, GET /v1/targets/PID/table, "                                                      \
	"GET /v1/status, GET /metrics"

/* What each method does to a path. HEAD is served as GET wherever GET is. */
struct route {
	const char *path;   /* TARGETS_PREFIX: followed by a pid */
	const char *suffix; /* and then by this; NULL: by nothing */
	struct {
		enum method method;
		enum action action;
	} verbs[3];
};

static const struct route routes[] = {
	{"/debug/pprof/", NULL, {{METHOD_GET, ACTION_INDEX}}},
	{"/debug/pprof", NULL, {{METHOD_GET, ACTION_INDEX_REDIRECT}}},
	{"/debug/pprof/profile", NULL, {{METHOD_GET, ACTION_PULL}}},
	{"/v1/targets", NULL, {{METHOD_GET, ACTION_LIST}, {METHOD_POST, ACTION_ATTACH}}},
	{TARGETS_PREFIX,
	 NULL,
	 {{METHOD_GET, ACTION_TARGET}, {METHOD_DELETE, ACTION_DETACH}, {METHOD_PATCH, ACTION_RATE}}},
	{TARGETS_PREFIX, TABLE_SUFFIX, {{METHOD_GET, ACTION_TABLE}}},
	{"/v1/status", NULL, {{METHOD_GET, ACTION_STATUS}}},
	{"/metrics", NULL, {{METHOD_GET, ACTION_METRICS}}},
};
enum { VERBS = sizeof(routes[0].verbs) / sizeof(routes[0].verbs[0]) };

int request_parse_number(const char *text, size_t length, uint32_t *ret)
{
	uint64_t value = 0;
	if (length == 0 || (length > 1 && text[0] == '0'))
		return -EINVAL;
	for (size_t i = 0; i < length; i++) {
		if (text[i] < '0' || text[i] > '9')
			return -EINVAL;
		if (value <= UINT32_MAX)
			value = value * 10 + (uint64_t)(text[i] - '0');
	}
	if (value > UINT32_MAX)
		return -ERANGE;
	*ret = (uint32_t)value;
	return 0;
}

static int parse_bounded(const char *name, const char *text, size_t length, uint32_t max, uint32_t *ret,
			 struct error *err)
{
	uint32_t value;
	if (request_parse_number(text, length, &value) < 0 || value < 1 || value > max) {
		error_set(err, EINVAL, "%s must be a whole number from 1 to %" PRIu32 ", not \"%.*s\"", name, max,
			  (int)(length < 40 ? length : 40), text);
		return 400;
	}
	*ret = value;
	return 0;
}

/* How long the pid is in a path that this route takes; 0: it takes it not. */
static size_t pid_length(const struct route *route, const char *path)
{
	size_t prefix = strlen(TARGETS_PREFIX);
	if (strcmp(route->path, TARGETS_PREFIX) != 0 || strncmp(path, TARGETS_PREFIX, prefix) != 0)
		return 0;
	size_t length = strcspn(path + prefix, "/");
	return strcmp(path + prefix + length, route->suffix ? route->suffix : "") == 0 ? length : 0;
}

static const struct route *find_route(const char *path)
{
	for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
		const struct route *route = &routes[i];
		bool fixed = strcmp(route->path, TARGETS_PREFIX) != 0;
		if (fixed ? strcmp(path, route->path) == 0 : pid_length(route, path) > 0)
			return route;
	}
	return NULL;
}

static void list_methods(const struct route *route, char ret[REQUEST_ALLOW_BYTES])
{
	size_t n = 0;
	for (size_t i = 0; i < VERBS; i++) {
		enum method method = route->verbs[i].method;
		const char *name = method == METHOD_GET      ? "GET, HEAD"
				   : method == METHOD_POST   ? ", POST"
				   : method == METHOD_DELETE ? ", DELETE"
				   : method == METHOD_PATCH  ? ", PATCH"
							     : "";
		n += (size_t)snprintf(ret + n, REQUEST_ALLOW_BYTES - n, "%s", name);
	}
}

static int find_action(const struct route *route, enum method method, enum action *ret)
{
	enum method wanted = method == METHOD_HEAD ? METHOD_GET : method;
	for (size_t i = 0; i < VERBS; i++)
		if (route->verbs[i].method == wanted) {
			*ret = route->verbs[i].action;
			return 0;
		}
	return -ENOENT;
}

enum pull_parameter { PULL_PID, PULL_SECONDS, PULL_SYMBOLS, PULL_PARAMETERS };

static enum pull_parameter pull_parameter_of(const char *name, size_t length)
{
	static const char *const names[PULL_PARAMETERS] = {"pid", "seconds", "symbols"};
	enum pull_parameter parameter = 0;
	while (parameter < PULL_PARAMETERS &&
	       (strlen(names[parameter]) != length || memcmp(names[parameter], name, length) != 0))
		parameter++;
	return parameter;
}

/* One name=value of the query of a pull. seen: which were there before, a bit each. */
static int parse_pull_parameter(const char *text, size_t length, struct serve_pull *pull, unsigned *seen,
				struct error *err)
{
	const char *equals = memchr(text, '=', length);
	size_t name_length = equals ? (size_t)(equals - text) : length;
	const char *value = equals ? equals + 1 : text + length;
	size_t value_length = (size_t)(text + length - value);
	enum pull_parameter parameter = pull_parameter_of(text, name_length);
	if (parameter == PULL_PARAMETERS) {
		error_set(err, EINVAL, "unknown parameter \"%.*s\": there are pid, seconds and symbols",
			  (int)(name_length < 40 ? name_length : 40), text);
		return 400;
	}
	if (*seen & 1U << parameter) {
		error_set(err, EINVAL, "%.*s is given twice", (int)name_length, text);
		return 400;
	}
	*seen |= 1U << parameter;
	if (parameter == PULL_PID)
		return parse_bounded("pid", value, value_length, BODY_MAX_PID, &pull->pid, err);
	if (parameter == PULL_SYMBOLS) {
		pull->no_symbols = value_length == 1 && value[0] == '0';
		if (pull->no_symbols || (value_length == 1 && value[0] == '1'))
			return 0;
		error_set(err, EINVAL, "symbols is 1 (the default) or 0");
		return 400;
	}
	pull->has_seconds = true;
	return parse_bounded("seconds", value, value_length, MAX_SECONDS, &pull->seconds, err);
}

static int parse_pull(const char *query, struct serve_pull *ret, struct error *err)
{
	struct serve_pull pull = {0};
	unsigned seen = 0;
	for (const char *text = query; text && *text;) {
		size_t length = strcspn(text, "&");
		int status = parse_pull_parameter(text, length, &pull, &seen, err);
		if (status)
			return status;
		text += length + (text[length] == '&');
	}
	if (!pull.pid) {
		error_set(err, EINVAL, "which process? add ?pid=N, e.g. /debug/pprof/profile?pid=1234&seconds=30");
		return 400;
	}
	*ret = pull;
	return 0;
}

static int parse_body(const struct request_text *text, struct request *request, struct error *err)
{
	enum media media = media_of_content_type(text->content_type);
	if (media != MEDIA_PROTOBUF && media != MEDIA_JSON) {
		error_set(err, EINVAL,
			  "send the body as " MEDIA_PROTOBUF_TYPE " (proto/control.proto) or as " MEDIA_JSON_TYPE
			  " and name it in Content-Type: curl -H 'Content-Type: " MEDIA_JSON_TYPE "' -d '%s'",
			  request->action == ACTION_ATTACH ? "{\"pid\":1234,\"frequency_hz\":99}"
							   : "{\"frequency_hz\":99}");
		return 415;
	}
	int r = request->action == ACTION_ATTACH
			? body_parse_attach(media, text->body, text->body_bytes, &request->attach, err)
			: body_parse_rate(media, text->body, text->body_bytes, &request->frequency_hz, err);
	return r == 0 ? 0 : r == -ENOMEM ? 503 : 400;
}

static int parse_arguments(const struct request_text *text, const struct route *route, struct request *request,
			   struct error *err)
{
	if (request->action == ACTION_PULL)
		return parse_pull(text->query, &request->pull, err);
	if (text->query && *text->query) {
		error_set(err, EINVAL, "%s takes no parameters", route->path);
		return 400;
	}
	size_t length = pid_length(route, text->path);
	if (length) {
		const char *pid = text->path + strlen(TARGETS_PREFIX);
		int status = parse_bounded("pid", pid, length, BODY_MAX_PID, &request->pid, err);
		if (status)
			return status;
	}
	if (request->action == ACTION_ATTACH || request->action == ACTION_RATE)
		return parse_body(text, request, err);
	return 0;
}

int request_parse(const struct request_text *text, struct request *ret, char ret_allow[REQUEST_ALLOW_BYTES],
		  struct error *err)
{
	const struct route *route = find_route(text->path);
	if (!route) {
		error_set(err, ENOENT, "there is no \"%.60s\" here; there are: " ROUTES, text->path);
		return 404;
	}
	struct request request = {0};
	if (find_action(route, text->method, &request.action) < 0) {
		list_methods(route, ret_allow);
		error_set(err, EOPNOTSUPP, "%s does not take that method: use one of %s", route->path, ret_allow);
		return 405;
	}
	int status = parse_arguments(text, route, &request, err);
	if (status == 0)
		*ret = request;
	return status;
}
