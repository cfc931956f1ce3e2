# Proof that sim_rpc can fail: rpc built again with a planted bug (#ifdef PLANT_...), which the first seed finds.
foreach(bug
	FORMER_LIFE   # what a killed process has sent is done, though its next one is here
	FORMER_HELLO) # its late hello ends what the next one has under way
	set(name sim_rpc_plant_${bug})
	add_executable(${name} sim/sim_rpc.c ${CMAKE_SOURCE_DIR}/common/sys/rpc.c)
	target_compile_definitions(${name} PRIVATE PLANT_${bug})
	target_link_libraries(${name} PRIVATE granary_sim_runner granary_sim granary_rpc granary_sim granary_common)
	add_test(NAME ${name} COMMAND ${name} --seeds 1 --expect-failure)
	set_tests_properties(${name} PROPERTIES LABELS sim TIMEOUT 60)
endforeach()
