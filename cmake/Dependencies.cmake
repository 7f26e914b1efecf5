# SPDX-License-Identifier: Apache-2.0
# Outside libraries, each wanted by one home only (STYLE: "each outside library has one home").

find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(PROTOBUF_C REQUIRED IMPORTED_TARGET libprotobuf-c>=1.4)
pkg_check_modules(SQLITE3 REQUIRED IMPORTED_TARGET sqlite3>=3.40)
pkg_check_modules(CRYPTO REQUIRED IMPORTED_TARGET libcrypto>=3.0)
pkg_check_modules(TOMLPLUSPLUS REQUIRED IMPORTED_TARGET tomlplusplus)
pkg_check_modules(RE2 REQUIRED IMPORTED_TARGET re2)
pkg_check_modules(JSON_C REQUIRED IMPORTED_TARGET json-c>=0.16)

# grpc's pkg-config file lists some seventy libraries; these two are what our code calls. The "unsecure"
# build serves plaintext on Unix sockets, all that containerd ever dials, with less memory and start-up.
find_library(GRPC_LIBRARY grpc_unsecure REQUIRED)
find_library(GPR_LIBRARY gpr REQUIRED)
add_library(lighter_grpc INTERFACE)
target_link_libraries(lighter_grpc INTERFACE ${GRPC_LIBRARY} ${GPR_LIBRARY})
