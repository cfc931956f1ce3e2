/* Nodes: lookup counts, epochs, and when a file that others changed needs a new one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "fuse/handles.h"

#define INODE 77u

static Granary__Inode file(uint64_t change, uint64_t data_change, uint64_t size, int64_t mtime)
{
	Granary__Inode attr = GRANARY__INODE__INIT;

	attr.mode = S_IFREG | 0644;
	attr.change = change;
	attr.data_change = data_change;
	attr.size = size;
	attr.mtime = mtime;
	return attr;
}

static void test_counts(void **state)
{
	struct handles handles;
	struct node *node;

	(void)state;
	handles_init(&handles);
	node = handles_node(&handles, INODE);
	assert_int_equal(node->nodeid, INODE);
	node->lookups = 3;
	assert_ptr_equal(handles_node(&handles, INODE), node);
	node_forget(&handles, node, 2);
	assert_ptr_equal(handles_find(&handles, INODE), node);
	node_hold(node);
	node_forget(&handles, node, 1);
	assert_ptr_equal(handles_find(&handles, INODE), node);
	node_drop(&handles, node);
	assert_null(handles_find(&handles, INODE));
	assert_null(handles_find_inode(&handles, INODE));
	handles_deinit(&handles);
}

static void test_epochs(void **state)
{
	struct handles handles;
	struct node *first, *second, *third;

	(void)state;
	handles_init(&handles);
	first = handles_node(&handles, INODE);
	first->lookups = 1;
	node_stale(first, 5000);
	second = handles_renew(&handles, INODE);
	second->lookups = 1;
	assert_int_equal(second->retry_until_ms, 5000 + NODE_RETRY_MS);
	third = handles_renew(&handles, INODE);
	third->lookups = 1;
	assert_int_not_equal(second->nodeid, third->nodeid);
	assert_true(second->nodeid >> 63);
	assert_int_equal(third->inode, INODE);
	assert_ptr_equal(handles_find_inode(&handles, INODE), third);
	assert_ptr_equal(handles_find(&handles, INODE), first);
	/* The one in the middle goes, then the newest: the oldest is what is left for lookups. */
	node_forget(&handles, second, 1);
	assert_ptr_equal(third->older, first);
	node_forget(&handles, third, 1);
	assert_ptr_equal(handles_node(&handles, INODE), first);
	node_forget(&handles, first, 1);
	/* All forgotten: the number is free again. */
	first = handles_node(&handles, INODE);
	assert_int_equal(first->nodeid, INODE);
	handles_deinit(&handles);
}

static void test_judge_file(void **state)
{
	struct node node = {.nodeid = INODE, .inode = INODE};
	Granary__Inode known = file(10, 10, 100, 5);
	Granary__Inode same_data = file(11, 10, 100, 5);
	Granary__Inode longer = file(12, 12, 200, 6);
	Granary__Inode same_size = file(12, 12, 100, 5);
	Granary__Inode touched = file(12, 10, 100, 9);
	Granary__Inode older = file(9, 9, 300, 1);

	(void)state;
	assert_int_equal(node_judge(&node, &known, 0), NODE_TOUCHED);
	node_learn(&node, &known);
	assert_int_equal(node_judge(&node, &known, 0), NODE_SAME);
	assert_int_equal(node_judge(&node, &same_data, 0), NODE_TOUCHED);
	assert_int_equal(node_judge(&node, &longer, 0), NODE_CHANGED);
	assert_int_equal(node_judge(&node, &same_size, 0), NODE_CHANGED);
	assert_int_equal(node_judge(&node, &touched, 0), NODE_CHANGED);
	assert_int_equal(node_judge(&node, &older, 0), NODE_SAME);
	node_learn(&node, &older);
	assert_int_equal(node.size, 100);
}

/* What is being written here has grown, and may have been committed in part. */
static void test_judge_own(void **state)
{
	struct node node = {.nodeid = INODE, .inode = INODE};
	Granary__Inode known = file(10, 10, 100, 5);
	Granary__Inode allocated = file(11, 10, 100, 5);
	Granary__Inode committed = file(12, 12, 200, 6);

	(void)state;
	node_learn(&node, &known);
	node.size = 300;
	assert_int_equal(node_judge(&node, &allocated, 0), NODE_CHANGED);
	node.write_opens = 1;
	assert_int_equal(node_judge(&node, &allocated, 0), NODE_TOUCHED);
	assert_int_equal(node_judge(&node, &committed, 12), NODE_TOUCHED);
	assert_int_equal(node_judge(&node, &committed, 11), NODE_CHANGED);
	node_distrust(&node);
	assert_int_equal(node_judge(&node, &allocated, 0), NODE_CHANGED);
}

static void test_distrust(void **state)
{
	struct node node = {.nodeid = INODE, .inode = INODE};
	Granary__Inode known = file(10, 10, 100, 5);

	(void)state;
	node_learn(&node, &known);
	node_distrust(&node);
	assert_int_equal(node_judge(&node, &known, 0), NODE_CHANGED);
	node_learn(&node, &known);
	assert_int_equal(node_judge(&node, &known, 0), NODE_CHANGED);
}

static void test_judge_directory(void **state)
{
	struct node node = {.nodeid = INODE, .inode = INODE};
	Granary__Inode attr = file(10, 10, 1, 5);

	(void)state;
	attr.mode = S_IFDIR | 0755;
	node_learn(&node, &attr);
	attr.change = attr.data_change = 20;
	attr.size = 2;
	attr.mtime = 50;
	assert_int_equal(node_judge(&node, &attr, 0), NODE_TOUCHED);
}

static void test_lease(void **state)
{
	struct node node = {.nodeid = INODE, .inode = INODE};
	Granary__Inode attr = file(10, 10, 100, 5);

	(void)state;
	node_learn(&node, &attr);
	node_lease(&node, &attr, 1000);
	assert_int_equal(node.plain_until_ms, 1000);
	attr.xattrs = 1;
	node_lease(&node, &attr, 2000);
	assert_int_equal(node.plain_until_ms, 0);
	/* Older news do not count. */
	attr.change = 9;
	attr.xattrs = 0;
	node_lease(&node, &attr, 3000);
	assert_int_equal(node.plain_until_ms, 0);
}

static void test_writing(void **state)
{
	struct node node = {.nodeid = INODE, .inode = INODE};

	(void)state;
	assert_false(node_is_writing(&node));
	node.opens = 1;
	assert_false(node_is_writing(&node));
	node.write_opens = 1;
	assert_true(node_is_writing(&node));
	node.write_opens = 0;
	node.mutating = 1;
	assert_true(node_is_writing(&node));
}

static void test_names(void **state)
{
	struct handles handles;
	struct node *node, *other;

	(void)state;
	handles_init(&handles);
	node = handles_node(&handles, INODE);
	other = handles_node(&handles, INODE + 1);
	node_name(&handles, node, 5, "a", 1);
	node_name(&handles, node, 5, "a", 1);
	node_name(&handles, node, 6, "b", 1);
	assert_ptr_equal(handles_find_name(&handles, 5, "a")->node, node);
	assert_ptr_equal(handles_find_name(&handles, 6, "b")->node, node);
	assert_null(handles_find_name(&handles, 6, "a"));
	assert_null(handles_find_name(&handles, 5, "ab"));
	assert_string_equal(node->names->text, "b");
	node_name(&handles, node, 5, "a", 1);
	assert_string_equal(node->names->text, "a");
	node_name(&handles, other, 5, "a", 1);
	assert_ptr_equal(handles_find_name(&handles, 5, "a")->node, other);
	assert_string_equal(node->names->text, "b");
	handles_drop_name(&handles, 6, "b");
	handles_drop_name(&handles, 6, "b");
	assert_null(handles_find_name(&handles, 6, "b"));
	assert_null(node->names);
	handles_deinit(&handles);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_counts),	   cmocka_unit_test(test_epochs), cmocka_unit_test(test_judge_file),
	    cmocka_unit_test(test_judge_directory), cmocka_unit_test(test_lease),  cmocka_unit_test(test_writing),
	    cmocka_unit_test(test_names), cmocka_unit_test(test_distrust), cmocka_unit_test(test_judge_own),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
