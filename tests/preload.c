/*
 * Imports numpy and onnxruntime in the postmaster, so that backends inherit them: a backend of its own accord takes
 * 0.26 s of CPU for it. The import is a DO block, since only PL/Python itself can initialise its interpreter.
 */
#include "postgres.h"

#include <stdlib.h>
#include <unistd.h>

#include "fmgr.h"
#include "nodes/parsenodes.h"
#include "utils/memutils.h"

PG_MODULE_MAGIC;

void _PG_init(void);

/* Skips the destructors of libraries, which would take each backend 0.02 s. */
static void
leave(int status, void *unused)
{
	_exit(status);
}

void
_PG_init(void)
{
	InlineCodeBlock *block = makeNode(InlineCodeBlock);
	PGFunction	run = load_external_function("$libdir/plpython3", "plpython3_inline_handler", true, NULL);

	block->source_text = "import os; os.environ['ORT_DISABLE_TELEMETRY'] = '1'; import numpy, onnxruntime";
	block->atomic = true;
	/* The block allocates memory as in a transaction, of which the postmaster has none. */
	TopTransactionContext = AllocSetContextCreate(TopMemoryContext, "preload", ALLOCSET_SMALL_SIZES);
	DirectFunctionCall1(run, PointerGetDatum(block));
	MemoryContextDelete(TopTransactionContext);
	TopTransactionContext = NULL;
	on_exit(leave, NULL);
}
