/* The rule that Supabase loads for PostgREST's login: an UPDATE or DELETE needs a WHERE clause. */
#include "postgres.h"

#include "fmgr.h"
#include "nodes/nodeFuncs.h"
#include "parser/analyze.h"

PG_MODULE_MAGIC;

void _PG_init(void);

static post_parse_analyze_hook_type next_hook = NULL;

static bool
refuse_unbounded_writes(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		Query	   *query = (Query *) node;

		if (query->commandType == CMD_UPDATE || query->commandType == CMD_DELETE)
			if (query->jointree->quals == NULL)
				ereport(ERROR,
						(errcode(ERRCODE_CARDINALITY_VIOLATION),
						 errmsg("%s requires a WHERE clause",
								query->commandType == CMD_UPDATE ? "UPDATE" : "DELETE")));
		return query_tree_walker(query, refuse_unbounded_writes, context, 0);
	}
	return expression_tree_walker(node, refuse_unbounded_writes, context);
}

static void
after_analysis(ParseState *state, Query *query, JumbleState *jumble)
{
	if (next_hook)
		next_hook(state, query, jumble);
	refuse_unbounded_writes((Node *) query, NULL);
}

void
_PG_init(void)
{
	next_hook = post_parse_analyze_hook;
	post_parse_analyze_hook = after_analysis;
}
