# Proof that sim_classes can fail: one file built again with a planted bug (#ifdef PLANT_...), in place of the library's, which
# must be found within a fixed number of seeds. With none of them sim_classes finds nothing.
set(classes_plants
	master/meta/assign:OLD_WALK_WINS:20	# an assignment overtakes a later one below
	master/what_if:LOST_IS_LEFT:20		# what-if leaves what was to be taken away
	master/tasks:SOONER_IS_NOT_SEEN:60	# what is added before what was loaded is not loaded
	master/meta/pack:MOVED_UNSEEN:60	# a record that was moved takes the place of what was written meanwhile
	client/file_io:CLIENT_MOVED_IS_OTHER:60	# who has the file open does not look where it is now
	chunkserver/move_op:MOVED_UNSYNCED:60)	# a record counts that is on no disk yet
add_library(sim_classes_parts OBJECT sim/sim_classes.c sim/classes_ask.c sim/classes_check.c)
target_link_libraries(sim_classes_parts PRIVATE ${sim_rooms} granary_sim)
foreach(plant ${classes_plants})
	string(REPLACE ":" ";" plant ${plant})
	list(GET plant 0 file)
	list(GET plant 1 bug)
	list(GET plant 2 seeds)
	set(name sim_classes_plant_${bug})
	add_executable(${name} ${CMAKE_SOURCE_DIR}/${file}.c $<TARGET_OBJECTS:sim_classes_parts>)
	target_compile_definitions(${name} PRIVATE PLANT_${bug})
	target_link_libraries(${name} PRIVATE ${sim_rooms} granary_sim granary_rpc granary_sim granary_common)
	add_test(NAME ${name} COMMAND ${name} --seeds ${seeds} --expect-failure)
	set_tests_properties(${name} PROPERTIES LABELS sim TIMEOUT 300)
endforeach()
