/* Who runs and who waits. The chain of a thread leads from the stack it runs on, by resumers, to the thread's own stack; what is on it is owned
 * by the thread in the table.
 *
 * A switch does not say whether the one who leaves waits (a coroutine that was resumed) or does not (a scheduler that goes from fiber to fiber). So:
 * - to a stack that is on the chain: it gets back control; those above it no longer wait for anybody;
 * - to any other: the one who leaves waits for it, unless both were found to be peers. Then the new one takes the other's place, and goes
 *   on at the same resumer.
 * Peers are those who were passed over: f resumed g, and control came back to f, or to one below, by another than g. */
#include "preload.h"

enum { MAX_CHAIN = 65536 };

static uint8_t peers[SPROF_MAX_STACKS]; /* by place; stays as untouched memory where there are no fibers */

bool preload_is_peer(const struct sprof_stack *stack)
{
	return __atomic_load_n(&peers[stack->self.index], __ATOMIC_RELAXED);
}

static void mark_peer(const struct sprof_stack *stack)
{
	__atomic_store_n(&peers[stack->self.index], 1, __ATOMIC_RELAXED);
}

static bool is_mine(const struct preload_self *self, const struct sprof_stack *stack)
{
	return SPROF_LOAD(stack->owner_tid) == self->thread->tid;
}

static struct sprof_stack *resumer_of(const struct sprof_stack *stack)
{
	return preload_stack_of(&stack->resumer);
}

static void let_go(struct sprof_stack *stack)
{
	sprof_set_resumer(stack, NULL, 0, 0, 0);
	SPROF_STORE(stack->owner_tid, 0);
}

static bool on_chain(const struct preload_self *self, const struct sprof_stack *stack)
{
	const struct sprof_stack *at = self->top;
	for (unsigned i = 0; at && i < MAX_CHAIN && is_mine(self, at); i++) {
		if (at == stack)
			return true;
		at = resumer_of(at);
	}
	return false;
}

/* Back to one that waits, or is said to. */
static void go_back(struct preload_self *self, struct sprof_stack *to)
{
	bool passed_over = resumer_of(self->top) != to && self->top != to;
	for (struct sprof_stack *at = self->top; at != to;) {
		struct sprof_stack *next = resumer_of(at);
		if (passed_over)
			mark_peer(at);
		let_go(at);
		at = next;
	}
	if (passed_over && resumer_of(to))
		mark_peer(to);
	self->top = to;
}

/* The chain down to the thread's own stack is not what it was. */
static void forget_chain(struct preload_self *self)
{
	struct sprof_stack *at = self->top;
	for (unsigned i = 0; at && at != self->system && i < MAX_CHAIN && is_mine(self, at); i++) {
		struct sprof_stack *next = resumer_of(at);
		let_go(at);
		at = next;
	}
	self->top = self->system;
}

/* Somebody else's switch, which was not seen, led here. */
static void catch_up(struct preload_self *self, struct sprof_stack *from)
{
	if (on_chain(self, from)) {
		go_back(self, from);
		return;
	}
	forget_chain(self);
	sprof_set_resumer(from, NULL, 0, 0, 0);
	SPROF_STORE(from->owner_tid, self->thread->tid);
	self->top = from;
}

/* A peer that was taken over by another thread while this one had it for waiting may be on the chain still. */
static bool chain_names(const struct preload_self *self, const struct sprof_stack *stack)
{
	const struct sprof_stack *at = self->top;
	for (unsigned i = 0; at && i < MAX_CHAIN; i++) {
		if (at == stack)
			return true;
		at = resumer_of(at);
	}
	return false;
}

static void resume(struct preload_self *self, struct sprof_stack *from, struct sprof_stack *to,
		   struct sprof_context site)
{
	struct sprof_stack *resumer = from;
	if (!from)
		forget_chain(self);
	if (SPROF_LOAD(to->owner_tid) != 0 && !is_mine(self, to))
		mark_peer(to);
	if (preload_is_peer(to) && chain_names(self, to)) {
		forget_chain(self);
		resumer = NULL;
	} else if (from && from != self->system && (site.pc == 0 || (preload_is_peer(from) && preload_is_peer(to)))) {
		resumer = resumer_of(from);
		site = from->resumer_context;
		let_go(from);
	}
	sprof_set_resumer(to, resumer && is_mine(self, resumer) ? resumer : NULL, site.pc, site.sp, site.fp);
	SPROF_STORE(to->owner_tid, self->thread->tid);
	self->top = to;
}

static struct sprof_stack *stack_at(struct preload_self *self, uint64_t sp)
{
	struct sprof_stack *stack = preload_registry_find(sp);
	return stack ? stack : preload_on_system(self, sp) ? self->system : NULL;
}

/* Anything but the usual. */
static void move(struct preload_self *self, struct sprof_stack *from, struct sprof_stack *to, struct sprof_context site)
{
	if (from && from != self->top)
		catch_up(self, from);
	if (to && on_chain(self, to))
		go_back(self, to);
	else if (to)
		resume(self, from, to, site);
}

/* The usual ways are short ones, since no sample is believed while the version is odd: what is looked up, and what is said of a stack that does not
 * run yet, comes before. */
static struct preload_change announce(struct preload_self *self, struct sprof_stack *from, struct sprof_stack *to,
				      struct sprof_context site)
{
	struct sprof_thread *thread = self->thread;
	struct preload_change announced = {.seq = &thread->seq, .step = 0};
	const struct sprof_stack *user = to == self->system ? NULL : to;
	bool usual = from && to && from == self->top;
	bool back = usual && is_mine(self, from) && resumer_of(from) == to && is_mine(self, to);
	bool forth = usual && !back && SPROF_LOAD(to->owner_tid) == 0 && !preload_is_peer(to) && site.pc != 0;
	if (forth) {
		sprof_set_resumer(to, from, site.pc, site.sp, site.fp);
		SPROF_STORE(to->owner_tid, thread->tid);
	}
	announced.step = sprof_begin(thread);
	if (back)
		let_go(from);
	else if (!forth)
		move(self, from, to, site);
	if (to)
		self->top = to;
	sprof_ref_store_(&thread->user, user);
	sprof_ref_store_(&thread->current, to);
	return announced;
}

struct preload_change preload_switch(uint64_t to_sp, uint64_t pc, uint64_t sp, uint64_t fp)
{
	struct preload_change none = {NULL, 0};
	struct preload_self *self = &preload_self;
	if (!__atomic_load_n(preload_alive, __ATOMIC_RELAXED) || self->inside)
		return none;
	self->inside = true;
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	if (preload_enroll(self, sp)) {
		struct sprof_stack *from =
			self->top && preload_contains(self->top, sp) ? self->top : stack_at(self, sp);
		struct sprof_stack *to = stack_at(self, to_sp);
		if (from != to)
			none = announce(self, from, to, (struct sprof_context){.pc = pc, .sp = sp, .fp = fp});
	}
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	self->inside = false;
	return none;
}

void preload_chain_end(struct preload_self *self)
{
	uint32_t step = sprof_begin(self->thread);
	forget_chain(self);
	sprof_end(self->thread, step);
	self->top = NULL;
}
