// No call hands out the plans of trees, so their test holds what makes them itself.
#include "plan.cu"
