#include "collect/python_layout.h"

#include <stddef.h>

static const struct python_layout layouts[] = {
	{
		.version = 3 << 8 | 11,
		.runtime_main_interpreter = 48,
		.interpreter_threads = 16,
		.state_next = 8,
		.state_interpreter = 16,
		.runtime_holder = 576,
		.ascii_bytes = 48,
		.text_bytes = 72,
		.config = {.runs = PYTHON_RUNS_BY_FLAG,
			   .state_thread_id = 152,
			   .state_frame = 56,
			   .has_c_frames = 1,
			   .c_frame_current = 8,
			   .c_frame_previous = 16,
			   .frame_code = 32,
			   .frame_previous = 48,
			   .frame_instruction = 56,
			   .frame_entry = 68,
			   .frame_owner = 69,
			   .code_first_line = 72,
			   .code_filename = 112,
			   .code_qualname = 128,
			   .code_line_table = 136,
			   .code_instructions = 184,
			   .code_number = 24},
	},
	{
		.version = 3 << 8 | 12,
		.runtime_main_interpreter = 48,
		.interpreter_threads = 72,
		.state_next = 8,
		.state_interpreter = 16,
		.ascii_bytes = 40,
		.text_bytes = 56,
		.config = {.runs = PYTHON_RUNS_BY_OWNER,
			   .state_thread_id = 136,
			   .state_frame = 56,
			   .has_c_frames = 1,
			   .c_frame_current = 0,
			   .c_frame_previous = 8,
			   .frame_code = 0,
			   .frame_previous = 8,
			   .frame_instruction = 56,
			   .frame_owner = 70,
			   .owner_c_stack = 3,
			   .code_first_line = 68,
			   .code_filename = 112,
			   .code_qualname = 128,
			   .code_line_table = 136,
			   .code_instructions = 192,
			   .code_number = 92},
	},
	{
		.version = 3 << 8 | 13,
		.tells_offsets = 1,
		.state_next = 8,
		.state_interpreter = 16,
		.ascii_bytes = 40,
		.text_bytes = 56,
		.config = {.runs = PYTHON_RUNS_BY_OWNER,
			   .state_thread_id = 152,
			   .state_frame = 72,
			   .frame_code = 0,
			   .frame_previous = 8,
			   .frame_instruction = 56,
			   .frame_owner = 70,
			   .owner_c_stack = 3,
			   .code_first_line = 68,
			   .code_filename = 112,
			   .code_qualname = 128,
			   .code_line_table = 136,
			   .code_instructions = 200,
			   .code_number = 92},
	},
};

const struct python_layout *python_layout_find(uint64_t version_hex)
{
	for (size_t i = 0; i < sizeof(layouts) / sizeof(layouts[0]); i++)
		if (layouts[i].version == version_hex >> 16)
			return &layouts[i];
	return NULL;
}
