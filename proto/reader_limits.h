/* Bounds of the conversation between sprofd and sprofd-elf (reader.proto): both sides check them, neither trusts the other. */
#pragma once

enum {
	READER_SOCKET_FD = 3,                 /* where sprofd-elf finds its SOCK_SEQPACKET socket */
	READER_FDS_MAX = 2,                   /* that come with a request */
	READER_MESSAGE_MAX_BYTES = 64 * 1024, /* of one packet, either way */
	READER_BATCH_MAX = 512,               /* offsets in one Symbolize */
	READER_NAME_MAX_BYTES = 4096,         /* of one string in a Frame, without NUL */
	READER_FRAMES_MAX = 64,         /* functions at one offset: the inlined ones and the one that holds them */
	READER_LINK_MAX_BYTES = 1024,   /* of the name or path of another file, without NUL */
	READER_SPLITS_MAX = 32,         /* files in one SplitWanted */
	READER_SYMBOLS_MAX = 8,         /* names in one FindSymbols */
	READER_BUILD_ID_MAX_BYTES = 64, /* before it is written as hex */
	READER_NAMELESS = '+',          /* begins the name of a function that has none */
};
