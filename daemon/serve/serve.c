#include "serve/serve.h"

#include <errno.h>
#include <event2/listener.h>
#include <signal.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "serve/internal.h"
#include "serve/request.h"

static enum method method_of(enum evhttp_cmd_type command)
{
	switch (command) {
	case EVHTTP_REQ_GET:
		return METHOD_GET;
	case EVHTTP_REQ_HEAD:
		return METHOD_HEAD;
	case EVHTTP_REQ_POST:
		return METHOD_POST;
	case EVHTTP_REQ_PATCH:
		return METHOD_PATCH;
	case EVHTTP_REQ_DELETE:
		return METHOD_DELETE;
	default:
		return METHOD_OTHER;
	}
}

static struct request_text text_of(struct evhttp_request *request)
{
	const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(request);
	struct evbuffer *body = evhttp_request_get_input_buffer(request);
	return (struct request_text){
		.method = method_of(evhttp_request_get_command(request)),
		.path = evhttp_uri_get_path(uri),
		.query = evhttp_uri_get_query(uri),
		.content_type = evhttp_find_header(evhttp_request_get_input_headers(request), "Content-Type"),
		.body = evbuffer_pullup(body, -1),
		.body_bytes = evbuffer_get_length(body),
	};
}

static void dispatch(struct serve *serve, struct serve_reply *reply, const struct request *request)
{
	const struct serve_handlers *handlers = &serve->handlers;
	switch (request->action) {
	case ACTION_INDEX:
		handlers->index(serve->context, reply);
		break;
	case ACTION_INDEX_REDIRECT:
		reply_redirect(reply, "/debug/pprof/");
		break;
	case ACTION_PULL:
		/* To be told the headers nobody wants a profile taken. */
		if (reply->head)
			reply_head(reply, "application/octet-stream");
		else
			handlers->pull(serve->context, reply, &request->pull);
		break;
	case ACTION_LIST:
		handlers->list(serve->context, reply);
		break;
	case ACTION_ATTACH:
		handlers->attach(serve->context, reply, &request->attach);
		break;
	case ACTION_TARGET:
		handlers->target(serve->context, reply, request->pid);
		break;
	case ACTION_TABLE:
		handlers->table(serve->context, reply, request->pid);
		break;
	case ACTION_RATE:
		handlers->rate(serve->context, reply, request->pid, request->frequency_hz);
		break;
	case ACTION_DETACH:
		handlers->detach(serve->context, reply, request->pid);
		break;
	case ACTION_STATUS:
		handlers->status(serve->context, reply);
		break;
	case ACTION_METRICS:
		handlers->metrics(serve->context, reply);
		break;
	}
}

static void on_request(struct evhttp_request *http_request, void *context)
{
	struct serve *serve = context;
	struct connection *connection = connection_find(serve, evhttp_request_get_connection(http_request));
	struct serve_reply *reply = connection ? connection_wait(connection, http_request) : NULL;
	if (!reply) {
		evhttp_send_error(http_request, 503, NULL); /* no memory for more; connection.c makes it text */
		return;
	}
	serve->counters.requests++;
	struct request_text text = text_of(http_request);
	reply->head = text.method == METHOD_HEAD;
	reply->wanted = media_wanted(evhttp_find_header(evhttp_request_get_input_headers(http_request), "Accept"));
	if (connection->turned_away) {
		reply_refuse(reply, 503, NULL, SERVE_TOO_MANY_TEXT);
		return;
	}
	struct request request;
	struct error err = {0};
	char allow[REQUEST_ALLOW_BYTES] = "";
	int status = request_parse(&text, &request, allow, &err);
	if (status)
		reply_refuse(reply, status, *allow ? allow : NULL, err.text);
	else
		dispatch(serve, reply, &request);
}

/* Without connections, whose deadlines it looks at, there are no ticks: the daemon then sleeps. */
static void tick_later(struct serve *serve)
{
	static const struct timeval second = {.tv_sec = 1};
	if (!event_pending(serve->tick, EV_TIMEOUT, NULL))
		event_add(serve->tick, &second);
}

static void on_adopt(evutil_socket_t fd, short events, void *context)
{
	(void)fd, (void)events;
	connection_adopt_all(context);
	tick_later(context);
}

static void on_tick(evutil_socket_t fd, short events, void *context)
{
	(void)fd, (void)events;
	struct serve *serve = context;
	uint64_t now_ns = clock_monotonic_ns();
	struct connection *next;
	for (struct connection *connection = TAILQ_FIRST(&serve->connections); connection; connection = next) {
		next = TAILQ_NEXT(connection, link);
		connection_check_deadline(connection, now_ns);
	}
	if (!TAILQ_EMPTY(&serve->connections))
		tick_later(serve);
}

static void enable_listener(evutil_socket_t fd, short events, void *listener)
{
	(void)fd, (void)events;
	evconnlistener_enable(listener);
}

/* accept failed, most likely for want of fds. The socket stays readable: do not spin, try again in a second. (The context is evhttp's own, and
 * the loop does not run any more once the server is freed.) */
static void on_accept_error(struct evconnlistener *listener, void *context)
{
	(void)context;
	static const struct timeval second = {.tv_sec = 1};
	if (event_base_once(evconnlistener_get_base(listener), -1, EV_TIMEOUT, enable_listener, listener, &second) == 0)
		evconnlistener_disable(listener);
}

static int make_http(struct serve *serve)
{
	serve->http = evhttp_new(serve->base);
	if (!serve->http)
		return -ENOMEM;
	evhttp_set_max_headers_size(serve->http, SERVE_MAX_HEADER_BYTES);
	evhttp_set_max_body_size(serve->http, SERVE_MAX_BODY_BYTES);
	/* A body that is too large is taken in before it is refused, since a client may not look for an answer while it sends. */
	evhttp_set_flags(serve->http, EVHTTP_SERVER_LINGERING_CLOSE);
	evhttp_set_allowed_methods(serve->http, EVHTTP_REQ_GET | EVHTTP_REQ_HEAD | EVHTTP_REQ_POST | EVHTTP_REQ_PATCH |
							EVHTTP_REQ_DELETE | EVHTTP_REQ_PUT | EVHTTP_REQ_OPTIONS |
							EVHTTP_REQ_TRACE);
	evhttp_set_bevcb(serve->http, connection_new, serve);
	evhttp_set_gencb(serve->http, on_request, serve);
	struct evconnlistener *listener =
		evconnlistener_new(serve->base, NULL, NULL, LEV_OPT_CLOSE_ON_EXEC, 0, serve->options.listen_fd);
	if (!listener)
		return -ENOMEM;
	evconnlistener_set_error_cb(listener, on_accept_error);
	if (!evhttp_bind_listener(serve->http, listener)) {
		evconnlistener_free(listener);
		return -ENOMEM;
	}
	return 0;
}

static int make_events(struct serve *serve)
{
	serve->adopt = event_new(serve->base, -1, 0, on_adopt, serve);
	serve->tick = event_new(serve->base, -1, 0, on_tick, serve);
	return serve->adopt && serve->tick ? 0 : -ENOMEM;
}

static int check_options(const struct serve_options *options, struct error *err)
{
	struct sigaction action;
	if (sigaction(SIGPIPE, NULL, &action) < 0 || action.sa_handler == SIG_DFL)
		return error_set(err, EINVAL, "SIGPIPE must be ignored: a client that goes away would end the daemon");
	if (options->max_connections == 0 || options->idle_timeout_s == 0)
		return error_set(err, EINVAL, "the limits of connections and of their idle time must not be zero");
	return 0;
}

static void serve_cleanup(struct serve **serve)
{
	serve_free(*serve);
}

int serve_new(struct event_base *base, const struct serve_options *options, const struct serve_handlers *handlers,
	      void *context, struct serve **ret, struct error *err)
{
	int r = check_options(options, err);
	if (r < 0)
		return r;
	_cleanup_(serve_cleanup) struct serve *serve = calloc(1, sizeof(*serve));
	if (!serve)
		return error_set(err, ENOMEM, "out of memory");
	serve->base = base;
	serve->options = *options;
	serve->handlers = *handlers;
	serve->context = context;
	TAILQ_INIT(&serve->connections);
	if (make_events(serve) < 0 || make_http(serve) < 0)
		return error_set(err, ENOMEM, "the HTTP server cannot be set up: out of memory, or fd %d is no socket",
				 options->listen_fd);
	*ret = TAKE_PTR(serve);
	return 0;
}

void serve_free(struct serve *serve)
{
	if (!serve)
		return;
	if (serve->http)
		evhttp_free(serve->http); /* ends every connection, which detaches its reply */
	connection_free_all(serve);
	if (serve->adopt)
		event_free(serve->adopt);
	if (serve->tick)
		event_free(serve->tick);
	free(serve);
}

void serve_counters(const struct serve *serve, struct serve_counters *ret)
{
	*ret = serve->counters;
}
