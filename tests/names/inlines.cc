// Much that is inlined into one another, and code whose names are hard: templates, lambdas, locals, static and cold parts.
#include <algorithm>
#include <functional>
#include <map>
#include <numeric>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

namespace {
struct local {
	int value;
	int get() const
	{
		if (value < 0)
			throw std::runtime_error("negative");
		return value * 3;
	}
};
template <class T> T twice(T t)
{
	return t + t;
}
} // namespace

static int helper(int x)
{
	auto inner = [x](int y) { return x * y + twice(x); };
	int sum = 0;
	for (int i = 0; i < x; i++)
		sum += inner(i);
	return sum;
}

int main(int argc, char **argv)
{
	std::map<std::string, std::vector<int>> groups;
	for (int i = 0; i < argc; i++)
		groups[std::string(argv[i]).substr(0, 2)].push_back(i);
	std::unordered_map<std::string, std::function<int(int)>> functions;
	functions["a"] = helper;
	functions["b"] = [](int x) { return local{x}.get(); };
	std::ostringstream out;
	for (auto &group : groups) {
		std::sort(group.second.begin(), group.second.end(), [](int a, int b) { return a > b; });
		out << group.first << std::accumulate(group.second.begin(), group.second.end(), 0)
		    << functions["a"]((int)group.second.size());
	}
	std::thread thread([&] { out << functions["b"](argc); });
	thread.join();
	return out.str().size() & 1;
}
